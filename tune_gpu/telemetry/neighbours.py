"""Who else is on the device: a winner found on an empty card is not one found beside 2 GiB of others."""

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
    """Null where the card does not report it."""


@dataclass(frozen=True)
class Neighbours:
    """All that was there at one moment and is not ours."""

    mib: float | None = 0.0
    """Memory of the device in use, ours left out (on the CPU: by everything that runs). Null where it is not known."""
    utilization_pct: float | None = None
    processes: tuple[Neighbour, ...] | None = ()
    """On a card, null where it does not list them; on the CPU the list would be the machine's and is left out."""

    @property
    def pids(self) -> frozenset[int] | None:
        """Their process ids; null where they are not known."""
        return None if self.processes is None else frozenset(process.pid for process in self.processes)

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts."""
        return {
            "memory_mib": rounded(self.mib),
            "utilization_pct": self.utilization_pct,
            "processes": None if self.processes is None else [{"pid": p.pid, "name": p.name, "memory_mib": rounded(p.mib)} for p in self.processes],
        }


def neighbours_on(probe: Probe, ours: Iterable[int] = ()) -> Neighbours:
    """Who is on the device now. Raises ServiceError (`measurement_invalid`) if the driver does not answer.

    Args:
        ours: processes that are no neighbours.
    """
    reading, own = probe.read(), set(ours)
    listed = probe.memory_by_pid_mib(list(own)) if own else {}
    ours_mib = None if listed is None else total(listed.values())
    left = None if reading.used_mib is None or ours_mib is None else max(0.0, reading.used_mib - ours_mib)
    if reading.processes is None:
        return Neighbours(left, reading.utilization_pct, () if probe.info.kind == "cpu" else None)
    others = [(pid, reading.processes[pid]) for pid in sorted(reading.processes.keys() - own)]
    return Neighbours(left, reading.utilization_pct, tuple(Neighbour(pid, _name(pid), mib) for pid, mib in others))


def rounded(mib: float | None) -> float | None:
    """As the artifacts have it."""
    return None if mib is None else round(mib, 1)


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).name()
    return "(not of this process namespace)"
