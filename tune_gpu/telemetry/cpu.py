"""Read the machine itself as a device: load, memory of process trees, the cgroup's memory limit, out-of-memory kills."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil

from tune_gpu.common.process.cgroup import memory_group, oom_kills
from tune_gpu.common.process.guard import head
from tune_gpu.telemetry.probe import MIB, DeviceInfo, Reading


class CpuProbe:
    """Read the whole machine, or the part that its cgroup may use."""

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

    def other_devices_of(self, pids: list[int]) -> str:  # noqa: ARG002 - there is one CPU
        return ""

    def oom_events(self) -> int:
        return oom_kills()[0]

    def close(self) -> None:
        """Do nothing, because the CPU needs no closing."""

    def _busy_pct(self) -> float:
        (idle_before, total_before), self._ticks = self._ticks, _ticks()
        idle, total = self._ticks
        passed = total - total_before
        # The kernel's count of I/O wait may decrease (proc(5)).
        return min(100.0, max(0.0, 100.0 * (1 - (idle - idle_before) / passed))) if passed > 0 else 0.0


def _ticks() -> tuple[int, int]:
    """Return the idle and the total ticks of all cores since boot, from /proc/stat (proc(5)).

    I/O wait is idle time; guests' ticks are in the user's already. psutil's `cpu_percent` reports the same, at two fifths of the cost of
    sampling.
    """
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, head("/proc/stat").split(maxsplit=9)[1:9])
    return idle + iowait, user + nice + system + idle + iowait + irq + softirq + steal


def _available() -> int:
    """Return the bytes of memory that programs can still have. psutil parses all of /proc/meminfo, which is too slow for ten readings a
    second."""
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
