"""Decide from the samples whether a stretch of load was measured on the right card and without disturbance.

A service on another card is a failure that would recur (`wrong_device`). A foreign process that appears, throttling, falling
clocks and a driver that stops answering make the window invalid, and it is measured again.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from tune_gpu.telemetry.probe import Reading

BUSY_PCT = 20.0
"""Utilisation above which a reading's clock counts. An idle card lowers its clocks by itself."""

_IDLE_PCT = 1.0
"""Highest utilisation of an idle card."""

_SPANNED_SHARE = 0.9
"""Share of a window that the readings of power or energy must span."""

NOT_PROVEN = "it is not proven that"
"""Beginning of the message that a service may not have been on its card."""

HELPERS = frozenset({"mps"})
"""Our own services that are on the card only while they have a client."""


class VerdictKind(StrEnum):
    """Reason why a window is invalid."""

    WRONG_DEVICE = "wrong_device"
    FOREIGN_PROCESS = "foreign_process"
    THERMAL_THROTTLING = "thermal_throttling"
    POWER_THROTTLING = "power_throttling"
    CLOCKS_FELL = "clocks_fell"
    DRIVER_SILENT = "driver_silent"


@dataclass(frozen=True)
class WindowVerdict:
    """One reason why a window is invalid, with a message that has the numbers."""

    kind: VerdictKind
    message: str


@dataclass(frozen=True)
class Limits:
    """Limits of a valid window (`telemetry` in the configuration)."""

    throttled_share: float = 0.1
    """Largest share of readings with throttling."""
    power_cap_invalidates: bool = True
    clock_fall_share: float = 0.15
    foreigners_invalidate: bool = True
    """False if several trials share a card on purpose."""
    foreign_readings: int = 2
    """Fewest readings in which a foreign process must appear to count. With fewer readings it ended at once, or is ours and newer than the
    last walk of our process trees."""


@dataclass(frozen=True)
class SampleSeries:
    """The samples of one window."""

    readings: Sequence[Reading]
    own: Mapping[str, Set[int]] = field(default_factory=dict)
    """Service -> every process that it had in the window."""
    neighbours: Set[int] | None = frozenset()
    """Processes that were on the card before the evaluation began; None if the card did not list them."""
    reference_mhz: float | None = None
    """Clock under load in an earlier window of the same evaluation; None in the first."""
    silent: str | None = None
    """The failure message if the driver stopped answering, or None."""


def judge(trace: SampleSeries, limits: Limits) -> list[WindowVerdict]:
    """Return all reasons why the window is invalid, or an empty list for a valid one."""
    if trace.silent is not None:
        return [WindowVerdict(VerdictKind.DRIVER_SILENT, trace.silent)]
    return [*_wrong_device(trace), *_foreign(trace, limits), *_throttled(trace, limits), *_clocks(trace, limits)]


def unchecked(trace: SampleSeries, limits: Limits) -> list[str]:
    """Return what could not be checked because the card does not report the readings for it. The window is still valid."""
    readings, found = trace.readings, []
    if not any(reading.processes is not None for reading in readings):
        found.append("the card does not report its processes: neither a service on another card nor a foreign process would be noticed")
    elif limits.foreigners_invalidate and trace.neighbours is None:
        found.append("the card did not report its processes before the evaluation: a foreign process would not be noticed")
    if not any(reading.throttled is not None for reading in readings):
        found.append("the card does not report why its clocks are low: throttling would not be noticed")
    if never_busy([reading.utilization_pct for reading in readings if reading.utilization_pct is not None]):
        found.append("the card reports a utilisation of 0 under load, which counts as not reported (with it objective.weights.efficiency must be 0)")
    if not any(reading.clock_mhz is not None and reading.utilization_pct is not None for reading in readings):
        found.append("the card does not report its clock and utilisation: falling clocks would not be noticed")
    return found


def never_busy(utilization_pct: Sequence[float]) -> bool:
    """Return True if a card under load always reported a utilisation of 0. Some drivers answer 0 instead of an error (Jetson Thor)."""
    return bool(utilization_pct) and max(utilization_pct) <= _IDLE_PCT


def busy_clock_mhz(readings: Sequence[Reading]) -> float | None:
    """Return the median clock under load, or None if the card does not report it or was never busy."""
    busy = [r.clock_mhz for r in readings if r.clock_mhz is not None and (r.utilization_pct or 0.0) >= BUSY_PCT]
    return statistics.median(busy) if busy else None


def _wrong_device(trace: SampleSeries) -> list[WindowVerdict]:
    listed = [reading.processes for reading in trace.readings if reading.processes is not None]
    if not listed:
        return []
    seen = {pid for processes in listed for pid in processes}
    return [
        WindowVerdict(VerdictKind.WRONG_DEVICE, f"none of the processes of {service} was on the card in {len(listed)} readings")
        for service, pids in trace.own.items()
        if service not in HELPERS and pids and not pids & seen
    ]


def _foreign(trace: SampleSeries, limits: Limits) -> list[WindowVerdict]:
    if not limits.foreigners_invalidate or trace.neighbours is None:
        return []
    known = trace.neighbours | {pid for pids in trace.own.values() for pid in pids}
    counts: dict[int, int] = {}
    peak: dict[int, float | None] = {}
    for reading in trace.readings:
        for pid, mib in (reading.processes or {}).items():
            if pid not in known:
                counts[pid] = counts.get(pid, 0) + 1
                peak[pid] = max((held for held in (mib, peak.get(pid)) if held is not None), default=None)
    return [
        WindowVerdict(VerdictKind.FOREIGN_PROCESS, f"process {pid} of somebody else appeared on the card ({_up_to(peak[pid])})")
        for pid, count in counts.items()
        if count >= limits.foreign_readings
    ]


def _up_to(mib: float | None) -> str:
    return "its memory is not reported" if mib is None else f"up to {mib:.0f} MiB"


def _throttled(trace: SampleSeries, limits: Limits) -> list[WindowVerdict]:
    found = []
    reported = [(reading, reading.throttled) for reading in trace.readings if reading.throttled is not None]
    n = len(reported)
    for name, kind in (("thermal", VerdictKind.THERMAL_THROTTLING), ("power", VerdictKind.POWER_THROTTLING)):
        if name == "power" and not limits.power_cap_invalidates:
            continue
        held = [reading for reading, reasons in reported if any(name in reason for reason in reasons)]
        if n and len(held) / n > limits.throttled_share:
            hottest = max((r.temperature_c for r in held if r.temperature_c is not None), default=None)
            at = f" (up to {hottest:.0f} degrees C)" if hottest is not None else ""
            found.append(WindowVerdict(kind, f"{name} throttling in {len(held)} of {n} readings{at}"))
    return found


def _clocks(trace: SampleSeries, limits: Limits) -> list[WindowVerdict]:
    third = max(1, len(trace.readings) // 3)
    first, last = busy_clock_mhz(trace.readings[:third]), busy_clock_mhz(trace.readings[-third:])
    for before, after, when in (
        (first, last, "from the first third of the window to its last"),
        (trace.reference_mhz, busy_clock_mhz(trace.readings), "since the earlier windows"),
    ):
        if before and after is not None and after < before * (1.0 - limits.clock_fall_share):
            return [WindowVerdict(VerdictKind.CLOCKS_FELL, f"the clock fell from {before:.0f} to {after:.0f} MHz under load, {when}")]
    return []


def energy_j(readings: Sequence[tuple[float, Reading]]) -> float | None:
    """Return the energy in joules between the first and the last reading, by the card's own counter, or else as the integral of its power
    (trapezium rule).

    Return None if the card reports neither for at least 90 % of the time, or if there are fewer than two readings.

    Args:
        readings: times in seconds and readings, in order.
    """
    if len(readings) < 2:
        return None
    counted = [(at, reading.energy_j) for at, reading in readings if reading.energy_j is not None]
    if _spans(counted, readings) and counted[-1][1] > counted[0][1]:
        return counted[-1][1] - counted[0][1]
    powers = [(at, reading.power_w) for at, reading in readings if reading.power_w is not None]
    if not _spans(powers, readings):
        return None
    return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(powers))


def _spans(known: Sequence[tuple[float, float]], readings: Sequence[tuple[float, Reading]]) -> bool:
    """Return True if the known values span nearly the whole time. Energy before the first and after the last one would be missing."""
    return len(known) > 1 and known[-1][0] - known[0][0] >= _SPANNED_SHARE * (readings[-1][0] - readings[0][0])
