"""Samples the device during a stretch of load, from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from tune_gpu.telemetry.probe import Probe, Reading

HZ = 10.0
_PROCESS_EVERY = 10
"""Process memory is read once for so many readings of the device: walking a process tree costs more."""


@dataclass(frozen=True)
class DeviceWindow:
    """The device during one stretch."""

    utilization_pct: float | None
    peak_used_mib: float | None
    peak_service_mib: Mapping[str, float]
    oom_events: int
    n_readings: int


class DeviceSampler:
    """`with DeviceSampler(probe, services) as sampler: …; sampler.window()`.

    Args:
        probe: the device.
        services: name -> a call that lists the service's processes.
    """

    def __init__(self, probe: Probe, services: Mapping[str, Callable[[], list[int]]]) -> None:
        self._probe, self._services = probe, services
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tune-gpu-sampler", daemon=True)
        self._readings: list[Reading] = []
        self._peaks: dict[str, float] = {}
        self._oom_before = probe.oom_events()
        self._oom_after = self._oom_before

    def __enter__(self) -> DeviceSampler:
        self._probe.read()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._oom_after = self._probe.oom_events()

    def window(self) -> DeviceWindow:
        """What was seen, after the end."""
        readings = self._readings
        return DeviceWindow(
            sum(r.utilization_pct for r in readings) / len(readings) if readings else None,
            max((r.used_mib for r in readings), default=None),
            dict(self._peaks),
            self._oom_after - self._oom_before,
            len(readings),
        )

    def _run(self) -> None:
        turn = 0
        due = time.monotonic()
        while True:
            due += 1.0 / HZ
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._readings.append(self._probe.read())
            if turn % _PROCESS_EVERY == 0:
                for name, pids in self._services.items():
                    used = sum(self._probe.memory_by_pid_mib(pids()).values())
                    self._peaks[name] = max(used, self._peaks.get(name, 0.0))
            turn += 1


def wait_until_stable(probe: Probe, *, samples: int, tolerance_mib: float, timeout_s: float, interval_s: float = 0.1) -> bool:
    """Wait until so many readings of memory in a row lie within the tolerance; false if the time ran out first."""
    deadline = time.monotonic() + timeout_s
    recent: list[float] = []
    while time.monotonic() < deadline:
        recent = [*recent, probe.read().used_mib][-samples:]
        if len(recent) == samples and max(recent) - min(recent) <= tolerance_mib:
            return True
        time.sleep(interval_s)
    return False


def wait_until_returned(probe: Probe, used_before_mib: float, *, tolerance_mib: float, timeout_s: float, interval_s: float = 0.1) -> float:
    """Wait until no more memory is in use than before; what is still missing (MiB), 0 if it has all come back."""
    deadline = time.monotonic() + timeout_s
    while True:
        missing = probe.read().used_mib - used_before_mib
        if missing <= tolerance_mib:
            return 0.0
        if time.monotonic() > deadline:
            return missing
        time.sleep(interval_s)
