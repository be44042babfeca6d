"""Whether a stretch of load was measured on the right card and undisturbed: pure, from what was sampled meanwhile.

A service on another card is a failure that no repetition repairs (`wrong_device`). A foreign process that appears, throttling, clocks that
fall and a driver that stops answering make the window invalid: it is measured again.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from tune_gpu.telemetry.probe import Reading

BUSY_PCT = 20.0
"""An idle card lowers its clocks of itself: only readings with this utilisation say something of them."""

HELPERS = frozenset({"mps"})
"""Processes of ours that are on the card only while somebody is their client."""


class VerdictKind(StrEnum):
    """What was wrong."""

    WRONG_DEVICE = "wrong_device"
    FOREIGN_PROCESS = "foreign_process"
    THERMAL_THROTTLING = "thermal_throttling"
    POWER_THROTTLING = "power_throttling"
    CLOCKS_FELL = "clocks_fell"
    DRIVER_SILENT = "driver_silent"


@dataclass(frozen=True)
class Verdict:
    """One thing that was wrong, in words with numbers."""

    kind: VerdictKind
    message: str


@dataclass(frozen=True)
class Limits:
    """What is let pass (`run.telemetry` in the configuration)."""

    throttled_share: float = 0.1
    """Of the readings."""
    power_cap_invalidates: bool = True
    clock_fall_share: float = 0.15
    foreigners_invalidate: bool = True
    """`False` where several trials share a card on purpose."""
    foreign_readings: int = 2
    """A process id in fewer readings is somebody's that ended at once (or ours, between two looks at our process trees)."""


@dataclass(frozen=True)
class Trace:
    """What was sampled in one window."""

    readings: Sequence[Reading]
    own: Mapping[str, Set[int]] = field(default_factory=dict)
    """Service -> every process that it had meanwhile."""
    neighbours: Set[int] = frozenset()
    """Processes that were on the card before the evaluation began."""
    reference_mhz: float | None = None
    """Clock under load in an earlier window of the same evaluation; null in the first."""
    silent: str | None = None
    """What the driver said, or failed to say, when it stopped answering."""


def judge(trace: Trace, limits: Limits) -> list[Verdict]:
    """Everything that was wrong; nothing for a window that counts."""
    if trace.silent is not None:
        return [Verdict(VerdictKind.DRIVER_SILENT, trace.silent)]
    return [*_wrong_device(trace), *_foreign(trace, limits), *_throttled(trace, limits), *_clocks(trace, limits)]


def busy_clock_mhz(readings: Sequence[Reading]) -> float | None:
    """The median clock under load; null if the card does not tell or was never busy."""
    busy = [r.clock_mhz for r in readings if r.clock_mhz is not None and (r.utilization_pct or 0.0) >= BUSY_PCT]
    return statistics.median(busy) if busy else None


def _wrong_device(trace: Trace) -> list[Verdict]:
    listed = [reading.processes for reading in trace.readings if reading.processes is not None]
    if not listed:
        return []
    seen = {pid for processes in listed for pid in processes}
    return [
        Verdict(VerdictKind.WRONG_DEVICE, f"none of the processes of {service} was on the card in {len(listed)} readings")
        for service, pids in trace.own.items()
        if service not in HELPERS and pids and not pids & seen
    ]


def _foreign(trace: Trace, limits: Limits) -> list[Verdict]:
    if not limits.foreigners_invalidate:
        return []
    known = trace.neighbours | {pid for pids in trace.own.values() for pid in pids}
    counts: dict[int, int] = {}
    peak: dict[int, float] = {}
    for reading in trace.readings:
        for pid, mib in (reading.processes or {}).items():
            if pid not in known:
                counts[pid] = counts.get(pid, 0) + 1
                peak[pid] = max(mib, peak.get(pid, 0.0))
    return [
        Verdict(VerdictKind.FOREIGN_PROCESS, f"process {pid} of somebody else appeared on the card (up to {peak[pid]:.0f} MiB)")
        for pid, count in counts.items()
        if count >= limits.foreign_readings
    ]


def _throttled(trace: Trace, limits: Limits) -> list[Verdict]:
    found = []
    n = len(trace.readings)
    for name, kind in (("thermal", VerdictKind.THERMAL_THROTTLING), ("power", VerdictKind.POWER_THROTTLING)):
        if name == "power" and not limits.power_cap_invalidates:
            continue
        held = [reading for reading in trace.readings if any(name in reason for reason in reading.throttled)]
        if n and len(held) / n > limits.throttled_share:
            hottest = max((r.temperature_c for r in held if r.temperature_c is not None), default=None)
            at = f" (up to {hottest:.0f} degrees C)" if hottest is not None else ""
            found.append(Verdict(kind, f"{name} throttling in {len(held)} of {n} readings{at}"))
    return found


def _clocks(trace: Trace, limits: Limits) -> list[Verdict]:
    third = max(1, len(trace.readings) // 3)
    first, last = busy_clock_mhz(trace.readings[:third]), busy_clock_mhz(trace.readings[-third:])
    for before, after, when in (
        (first, last, "from the first third of the window to its last"),
        (trace.reference_mhz, busy_clock_mhz(trace.readings), "since the windows before"),
    ):
        if before and after is not None and after < before * (1.0 - limits.clock_fall_share):
            return [Verdict(VerdictKind.CLOCKS_FELL, f"the clock fell from {before:.0f} to {after:.0f} MHz under load, {when}")]
    return []


def energy_j(readings: Sequence[tuple[float, Reading]]) -> float | None:
    """Joules between the first and the last reading: by the card's own counter, else the integral of its power (trapezium rule).

    Args:
        readings: with their times in seconds, in order. Null if the card tells neither, or there are fewer than two.
    """
    if len(readings) < 2:
        return None
    counted = [reading.energy_j for _, reading in readings if reading.energy_j is not None]
    if len(counted) > 1 and counted[-1] > counted[0]:
        return counted[-1] - counted[0]
    powers = [(at, reading.power_w) for at, reading in readings if reading.power_w is not None]
    if len(powers) < 2:
        return None
    return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(powers))
