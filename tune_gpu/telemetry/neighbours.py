"""List other users of the device. The best configuration on an empty card may differ from the best beside 2 GiB of other processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil

from tune_gpu.telemetry.probe import Probe, total


@dataclass(frozen=True)
class Neighbour:
    """A process of somebody else on the card."""

    pid: int
    name: str
    mib: float | None
    """None if the card does not report it."""


@dataclass(frozen=True)
class Neighbours:
    """Other users of the device at one moment."""

    mib: float | None = 0.0
    """Device memory that others use, in MiB (on the CPU: memory that all other programs use). None if unknown."""
    utilization_pct: float | None = None
    """Utilisation of the card just before the candidate starts. None on the CPU, whose load at that moment is the evaluation's own."""
    processes: tuple[Neighbour, ...] | None = ()
    """None if the card does not list its processes. Empty on the CPU, where the list would be the whole machine's."""

    @property
    def pids(self) -> frozenset[int] | None:
        """Return their process ids, or None if they are unknown."""
        return None if self.processes is None else frozenset(process.pid for process in self.processes)

    def as_dict(self) -> dict[str, Any]:
        """Return the neighbours in the form of the artifacts."""
        return {
            "memory_mib": rounded(self.mib),
            "utilization_pct": self.utilization_pct,
            "processes": None if self.processes is None else [{"pid": p.pid, "name": p.name, "memory_mib": rounded(p.mib)} for p in self.processes],
        }


def neighbours_on(probe: Probe, ours: Iterable[int] = ()) -> Neighbours:
    """Return the present users of the device. Raise ServiceError (`measurement_invalid`) if the driver does not answer.

    Args:
        ours: processes that are not neighbours.
    """
    reading, own = probe.read(), set(ours)
    listed = probe.memory_by_pid_mib(list(own)) if own else {}
    ours_mib = None if listed is None else total(listed.values())
    left = None if reading.used_mib is None or ours_mib is None else max(0.0, reading.used_mib - ours_mib)
    if reading.processes is None:
        on_cpu = probe.info.kind == "cpu"
        return Neighbours(left, None if on_cpu else reading.utilization_pct, () if on_cpu else None)
    others = [(pid, reading.processes[pid]) for pid in sorted(reading.processes.keys() - own)]
    return Neighbours(left, reading.utilization_pct, tuple(Neighbour(pid, _name(pid), mib) for pid, mib in others))


def rounded(mib: float | None) -> float | None:
    """Return the memory in MiB, rounded as in the artifacts."""
    return None if mib is None else round(mib, 1)


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).name()
    return "(not of this process namespace)"
