"""Who else is on the device: a winner found on an empty card is not one found beside 2 GiB of others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil

from tune_gpu.telemetry.probe import Probe


@dataclass(frozen=True)
class Neighbour:
    """A process of somebody else on the card."""

    pid: int
    name: str
    mib: float


@dataclass(frozen=True)
class Neighbours:
    """All that was there at one moment and is not ours."""

    mib: float = 0.0
    """Memory of the device in use, ours left out (on the CPU: by everything that runs)."""
    utilization_pct: float | None = None
    processes: tuple[Neighbour, ...] = ()
    """On a card; on the CPU the list would be the machine's and is left out."""

    @property
    def pids(self) -> frozenset[int]:
        """Their process ids."""
        return frozenset(process.pid for process in self.processes)

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts."""
        return {
            "memory_mib": round(self.mib, 1),
            "utilization_pct": self.utilization_pct,
            "processes": [{"pid": p.pid, "name": p.name, "memory_mib": round(p.mib, 1)} for p in self.processes],
        }


def neighbours_on(probe: Probe, ours: Iterable[int] = ()) -> Neighbours:
    """Who is on the device now. Raises ServiceError (`measurement_invalid`) if the driver does not answer.

    Args:
        ours: processes that are no neighbours.
    """
    reading, own = probe.read(), set(ours)
    used = reading.used_mib - sum(probe.memory_by_pid_mib(list(own)).values())
    others = {pid: mib for pid, mib in (reading.processes or {}).items() if pid not in own}
    return Neighbours(max(0.0, used), reading.utilization_pct, tuple(Neighbour(pid, _name(pid), mib) for pid, mib in sorted(others.items())))


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).name()
    return "(not of this process namespace)"
