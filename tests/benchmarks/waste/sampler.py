"""What the device's sampler costs while it runs."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.sampler import HZ, DeviceSampler


def measure(seconds: float) -> dict[str, Any]:
    """CPU share of one core, with ten processes as services, and without the sampler."""
    services = [subprocess.Popen(["sleep", "600"]) for _ in range(10)]
    try:
        probe = open_probe("cpu")
        pids = [service.pid for service in services]
        idle = _cpu(seconds)
        with DeviceSampler(probe, {"vllm": lambda: pids[:6], "whisper": lambda: pids[6:]}) as sampler:
            busy = _cpu(seconds)
        readings = sampler.window().n_readings
        probe.close()
    finally:
        for service in services:
            service.kill()
            service.wait()
    return {
        "hz": HZ, "readings": readings, "core_share": (busy - idle) / seconds, "without": idle / seconds, "load": os.getloadavg()
    }  # fmt: skip


def _cpu(seconds: float) -> float:
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before
