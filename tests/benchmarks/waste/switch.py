"""Cold and warm starts of the same engine, in turns, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from tune_gpu.config.loader import load_config
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import engine_environment


def once(settings: VllmSettings, host: ForkServer | None) -> float:
    """Seconds of one switch: to ready and proven, and down again."""
    engine = VllmServer(settings, device="cpu", port_range=[20000, 29999], fork_server=host)
    began = time.monotonic()
    engine.start()
    engine.stop()
    return time.monotonic() - began


def measure(starts: int) -> dict[str, Any]:
    """Medians, the ratio of the medians, and what the host's imports cost once."""
    settings = load_config("spica_gpu_allocation", [], "cpu").services.vllm
    settings.gpu_memory_utilization, settings.cpu_cores = 0.1, "0"
    host = ForkServer(engine_environment(settings, "", "cpu", "/tmp"))
    host.open()
    try:
        once(settings, host)  # the first of all pays for the page cache, whichever kind it is
        warm, cold = [], []
        for _ in range(starts):
            warm.append(once(settings, host))
            cold.append(once(settings, None))
    finally:
        host.close()
    return {
        "warm_s": warm, "cold_s": cold, "warm_median_s": statistics.median(warm), "cold_median_s": statistics.median(cold),
        "ratio": statistics.median(cold) / statistics.median(warm), "host_imports_once_s": host.import_s, "load": os.getloadavg(),
    }  # fmt: skip
