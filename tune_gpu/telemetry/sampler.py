"""Sample the device during a stretch of load, from a separate thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from types import TracebackType

from tune_gpu.common.failures import ServiceError
from tune_gpu.telemetry.counters import COUNTER, rises
from tune_gpu.telemetry.neighbours import rounded
from tune_gpu.telemetry.probe import Probe, Reading, total
from tune_gpu.telemetry.verdicts import (
    Limits,
    SampleSeries,
    VerdictKind,
    WindowVerdict,
    busy_clock_mhz,
    energy_j,
    judge,
    never_busy,
    unchecked,
)

HZ = 10.0
_NOTE_EVERY = 10
"""Readings per sample of the trace, one second apart. On the CPU, the services' memory is also read only once in this many readings."""
_NULLS_IN_A_ROW = 3
"""Number of consecutive readings without a value after which no value is expected."""
_WALK_EVERY = 50
"""Readings between two walks of our own process trees. A new process on the card also causes a walk.

A walk of /proc takes milliseconds, and all of the sampling must stay below 1 % of a core.
"""


@dataclass(frozen=True)
class DeviceSample:
    """The device in one second."""

    at: float
    """Seconds since 1970, UTC."""
    utilization_pct: float | None
    used_mib: float | None
    clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    gauges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Service -> its own readings by name, for example `kv_cache_pct`; a reading that it did not give is missing. Counters are not among them."""


@dataclass(frozen=True)
class DeviceStats:
    """The device during one stretch of load."""

    utilization_pct: float | None
    peak_used_mib: float | None
    peak_service_mib: Mapping[str, float | None]
    """None for a service whose memory the card never reported."""
    oom_events: int
    n_readings: int
    moments: tuple[DeviceSample, ...] = ()
    """One sample a second."""
    energy_j: float | None = None
    busy_clock_mhz: float | None = None
    verdicts: tuple[WindowVerdict, ...] = ()
    """Reasons why the window is invalid; empty for a valid one."""
    unchecked: tuple[str, ...] = ()
    """What the card does not report, and what therefore would go unnoticed."""
    counted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Service -> by how much its counters rose. One that it did not give at both ends, or that fell, is missing."""

    def peak_of(self, service: str, gauge: str) -> float | None:
        """Return the greatest reading of a service's gauge, or None if it was never reported."""
        return max((moment.gauges[service][gauge] for moment in self.moments if gauge in moment.gauges.get(service, {})), default=None)

    @property
    def wrong_device(self) -> str | None:
        """Return the message about a service on another device, or None."""
        return next((verdict.message for verdict in self.verdicts if verdict.kind is VerdictKind.WRONG_DEVICE), None)

    @property
    def invalid(self) -> str | None:
        """Return why the measurement must not be used, or None if it may."""
        return "; ".join(f"{verdict.kind}: {verdict.message}" for verdict in self.verdicts) or None


class DeviceSampler:
    """Sample the device within a block: `with DeviceSampler(probe, services) as sampler: …; sampler.window()`.

    Args:
        probe: the device.
        services: name -> a call that lists the service's processes.
        gauges: name -> a call that returns the service's own readings and counters by name.
        observe: called with each second's sample, from the sampler's thread.
        neighbours: processes of others that were on the device before; None if unknown.
        limits: limits of a valid window.
        reference_mhz: clock under load in earlier windows.
    """

    def __init__(
        self,
        probe: Probe,
        services: Mapping[str, Callable[[], list[int]]],
        *,
        gauges: Mapping[str, Callable[[], Mapping[str, float]]] | None = None,
        observe: Callable[[DeviceSample], None] = lambda _moment: None,
        neighbours: Set[int] | None = frozenset(),
        limits: Limits | None = None,
        reference_mhz: float | None = None,
    ) -> None:
        self._probe, self._services, self._gauges, self._observe = probe, services, gauges or {}, observe
        self._neighbours, self._limits, self._reference_mhz = neighbours, limits or Limits(), reference_mhz
        self._moments: list[DeviceSample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tune-gpu-sampler", daemon=True)
        self._readings: list[tuple[float, Reading]] = []
        self._own: dict[str, set[int]] = {name: set() for name in services}
        self._strangers: set[int] = set()
        self._peaks: dict[str, float | None] = {}
        self._silent: str | None = None
        self._oom_before = probe.oom_events()
        self._oom_after = self._oom_before
        self._counters_before: Mapping[str, Mapping[str, float]] = {}
        self._counters_after: Mapping[str, Mapping[str, float]] = {}

    def __enter__(self) -> DeviceSampler:
        self._try(self._probe.read)
        self._counters_before = self._read_gauges(counters=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._oom_after = self._probe.oom_events()
        self._counters_after = self._read_gauges(counters=True)

    def window(self) -> DeviceStats:
        """Return the statistics of the stretch, after its end."""
        readings = [reading for _, reading in self._readings]
        busy = [reading.utilization_pct for reading in readings if reading.utilization_pct is not None]
        trace = SampleSeries(readings, self._own, self._neighbours, self._reference_mhz, self._silent)
        on_card = self._probe.info.kind == "cuda"
        if on_card and never_busy(busy):
            busy = []
        return DeviceStats(
            sum(busy) / len(busy) if busy else None,
            max((r.used_mib for r in readings if r.used_mib is not None), default=None),
            dict(self._peaks),
            self._oom_after - self._oom_before,
            len(readings),
            tuple(self._moments),
            energy_j(self._readings),
            busy_clock_mhz(readings),
            tuple(judge(trace, self._limits)),
            tuple(unchecked(trace, self._limits)) if on_card else (),
            {name: rises(before, self._counters_after.get(name, {})) for name, before in self._counters_before.items()},
        )

    def _run(self) -> None:
        turn = 0
        due = time.monotonic()
        while True:
            due = max(due + 1.0 / HZ, time.monotonic())  # skip readings after a delay instead of catching up with a burst
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._try(lambda now=turn: self._sample(now % _NOTE_EVERY == 0, now % _WALK_EVERY == 0))  # type: ignore[misc]
            turn += 1

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except ServiceError as error:  # the driver does not answer
            self._silent = self._silent or error.failure.message

    def _sample(self, note: bool, walk: bool) -> None:
        reading = self._probe.read()
        self._readings.append((time.monotonic(), reading))
        here = reading.processes.keys() if reading.processes is not None else frozenset()
        new = here - set(self._neighbours or ()).union(self._strangers, *self._own.values())
        if walk or new:  # a foreign process, or a new child of ours
            for name, pids in self._services.items():
                self._own[name].update(pids())
            self._strangers |= new - set().union(*self._own.values())
        if reading.processes is not None:
            self._note_peaks({name: total(reading.processes[pid] for pid in pids & reading.processes.keys()) for name, pids in self._own.items()})
        elif note:
            self._note_peaks({name: self._held_mib(pids) for name, pids in self._own.items()})
        if note:
            self._note([seen for _, seen in self._readings[-_NOTE_EVERY:]])

    def _read_gauges(self, *, counters: bool) -> dict[str, dict[str, float]]:
        """Return either the counters or the other readings of each service."""
        return {name: {key: value for key, value in read().items() if key.endswith(COUNTER) is counters} for name, read in self._gauges.items()}

    def _held_mib(self, pids: set[int]) -> float | None:
        held = self._probe.memory_by_pid_mib(list(pids))
        return None if held is None else total(held.values())

    def _note_peaks(self, used: Mapping[str, float | None]) -> None:
        for name, now in used.items():
            self._peaks[name] = max((mib for mib in (now, self._peaks.get(name)) if mib is not None), default=None)

    def _note(self, readings: list[Reading]) -> None:
        last = readings[-1]
        busy = [reading.utilization_pct for reading in readings if reading.utilization_pct is not None]
        mean = round(sum(busy) / len(busy), 1) if busy else None
        gauges = {name: found for name, found in self._read_gauges(counters=False).items() if found}
        moment = DeviceSample(round(time.time(), 2), mean, rounded(last.used_mib), last.clock_mhz, last.power_w, last.temperature_c, gauges)
        self._moments.append(moment)
        self._observe(moment)


def wait_until_stable(probe: Probe, *, samples: int, tolerance_mib: float, timeout_s: float, interval_s: float = 0.1) -> bool | None:
    """Wait until this many consecutive readings of memory lie within the tolerance, and return True.

    Return False at the time-out. Return None if as many consecutive readings had no memory value, because waiting would not help.
    """
    deadline = time.monotonic() + timeout_s
    recent: list[float | None] = []
    while time.monotonic() < deadline:
        recent = [*recent, probe.read().used_mib][-samples:]
        known = [mib for mib in recent if mib is not None]
        if len(recent) == samples and not known:
            return None
        if len(known) == samples and max(known) - min(known) <= tolerance_mib:
            return True
        time.sleep(interval_s)
    return False


def wait_until_returned(probe: Probe, used_before_mib: float | None, *, tolerance_mib: float, timeout_s: float, interval_s: float = 0.1) -> float | None:
    """Wait until no more memory is in use than before. Return the MiB that are still in use at the time-out, or 0 if all memory was
    returned.

    Return None if that is unknown: the card did not report its memory before, or does not in several consecutive readings.
    """
    deadline, nulls = time.monotonic() + timeout_s, 0
    while True:
        used = probe.read().used_mib
        nulls = nulls + 1 if used is None else 0
        if used_before_mib is None or nulls >= _NULLS_IN_A_ROW:
            return None
        missing = math.inf if used is None else used - used_before_mib
        if missing <= tolerance_mib:
            return 0.0
        if time.monotonic() > deadline:
            return None if used is None else missing
        time.sleep(interval_s)
