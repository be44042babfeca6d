"""What telemetry takes of a core while it samples ten times a second. On a card without the driver's own share, which no fake can tell."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests.support.fake_nvml import FakeNvml, Frame
from tune_gpu.common.process import guard
from tune_gpu.telemetry.cpu import CpuProbe
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.probe import Probe
from tune_gpu.telemetry.sampler import HZ, DeviceSampler

pytestmark = pytest.mark.benchmark
SECONDS = 3


def share_of_a_core(probe: Probe) -> float:
    """CPU time of all threads that sampling has, over the time it ran."""
    moments = threading.Semaphore(0)
    services = {name: lambda: guard.descendants(os.getpid()) for name in ("whisper", "vllm")}
    with DeviceSampler(probe, services, observe=lambda _moment: moments.release()) as sampler:
        started, spent = time.monotonic(), time.process_time()
        for _ in range(SECONDS):
            assert moments.acquire(timeout=30)
        share = (time.process_time() - spent) / (time.monotonic() - started)
    assert sampler.window().n_readings >= 0.5 * HZ * (SECONDS - 1)
    return share


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_sampling_takes_less_than_a_hundredth_of_a_core(kind: str) -> None:
    probe: Probe = CpuProbe() if kind == "cpu" else NvmlProbe("0", FakeNvml([Frame({os.getpid(): 1000.0})]))
    share = share_of_a_core(probe)
    probe.close()
    print(f"{kind}: {100 * share:.2f} % of a core at {HZ:g} Hz")
    assert share < 0.01
