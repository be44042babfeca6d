"""The machine itself as a device, for measurements on the CPU: load, memory of process trees, its cgroup's limit, kills for want of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil

from tune_gpu.common.process.cgroup import memory_group, oom_kills
from tune_gpu.common.process.guard import head
from tune_gpu.telemetry.probe import MIB, DeviceInfo, Reading


class CpuProbe:
    """Reads the whole machine, or what its cgroup leaves of it."""

    def __init__(self) -> None:
        self._total = total = psutil.virtual_memory().total
        self._group = memory_group()
        limit = self._group.limit() if self._group else None
        self._limited = limit is not None and limit < total
        self.info = DeviceInfo("cpu", _cpu_name(), None, (limit if limit is not None and self._limited else total) / MIB, cores=psutil.cpu_count())
        self._ticks = _ticks()

    def read(self) -> Reading:
        used = self._group.used() if self._limited and self._group else self._total - _available()
        return Reading(self._busy_pct(), used / MIB)

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float]:
        found: dict[int, float] = {}
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                found[pid] = psutil.Process(pid).memory_info().rss / MIB
        return found

    def whereabouts(self, pids: list[int]) -> str:  # noqa: ARG002 - there is one CPU
        return ""

    def oom_events(self) -> int:
        return oom_kills()[0]

    def close(self) -> None:
        """Nothing to let go of."""

    def _busy_pct(self) -> float:
        (idle_before, total_before), self._ticks = self._ticks, _ticks()
        idle, total = self._ticks
        passed = total - total_before
        # Within bounds, because the kernel's count of waiting for a disk may fall (proc(5)).
        return min(100.0, max(0.0, 100.0 * (1 - (idle - idle_before) / passed))) if passed > 0 else 0.0


def _ticks() -> tuple[int, int]:
    """Of all cores since boot: ticks idle (waiting for a disk is idle too), and all ticks (/proc/stat, proc(5); those of guests are in user's already).
    psutil's `cpu_percent` says the same for two fifths of all that sampling cost."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, head("/proc/stat").split(maxsplit=9)[1:9])
    return idle + iowait, user + nice + system + idle + iowait + irq + softirq + steal


def _available() -> int:
    """Bytes that programs can still have. psutil would make a table of all that /proc/meminfo says, and ten times a second that is too much."""
    try:
        _, _, rest = head("/proc/meminfo").partition(b"MemAvailable:")
        return int(rest.split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return int(psutil.virtual_memory().available)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "cpu"
