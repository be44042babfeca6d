"""The soak: keep the winner under load long enough to detect failures and growing memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy.stats import theilslopes

from tune_gpu.promote.gate import Condition

_SLACK_MIB = 16.0
"""Growth that is always tolerated, because allocators round."""


class LoadClient(Protocol):
    """Deploys and loads the winner: `tune_gpu.compare.measuring_actor.MeasurementClient`."""

    def hold(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Deploy the configuration. Return the failure if it does not start, else None."""

    def load(self) -> dict[str, Any]:
        """Run one window of load, and return its measurements."""


@dataclass
class Soak:
    """The observations of a soak."""

    wanted_s: float
    seconds: float = 0.0
    n_requests: int = 0
    errors: list[str] = field(default_factory=list)
    oom_events: int = 0
    memory_mib: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Service -> (seconds since the start, peak in that window), for windows in which the memory is known."""
    memory_unknown: Counter[str] = field(default_factory=Counter)
    """Service -> number of windows in which its memory was not reported."""
    device_memory_mib: list[tuple[float, float]] = field(default_factory=list)
    """Memory of the whole device, including other users."""
    failure: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the soak for the gate's record."""
        return {
            "wanted_s": self.wanted_s,
            "seconds": round(self.seconds, 1),
            "n_requests": self.n_requests,
            "errors": dict(Counter(self.errors)),
            "oom_events": self.oom_events,
            "memory_mib": {name: [[round(t, 1), round(m, 1)] for t, m in series] for name, series in self.memory_mib.items()},
            "memory_unknown": dict(self.memory_unknown),
            "device_memory_mib": [[round(t, 1), round(m, 1)] for t, m in self.device_memory_mib],
            "growth_mib": {name: round(growth_mib(series), 1) for name, series in self.memory_mib.items()},
            "failure": self.failure,
        }


def hold_under_load(client: LoadClient, params: Mapping[str, Any], seconds: float, print_line: Callable[[str], None]) -> Soak:
    """Load the winner window by window until the time is over or a service fails."""
    soak = Soak(seconds)
    soak.failure = client.hold(params)
    started = reported = time.monotonic()
    while soak.failure is None and (soak.seconds < seconds or not soak.n_requests):
        seen = client.load()
        now = time.monotonic()
        soak.seconds, soak.failure = now - started, seen["failure"]
        if soak.failure is None:
            soak.n_requests += seen["n_requests"]
            soak.errors += seen["errors"]
            soak.oom_events += seen["oom_events"]
            for name, peak in seen["service_memory_mib"].items():
                if peak is None:
                    soak.memory_unknown[name] += 1
                else:
                    soak.memory_mib.setdefault(name, []).append((soak.seconds, peak))
            if (used := seen.get("device_memory_mib")) is not None:
                soak.device_memory_mib.append((soak.seconds, used))
        if now - reported > 10.0:
            reported = now
            print_line(f"  soak: {soak.seconds:.0f} of {seconds:.0f} s, {soak.n_requests} requests, {len(soak.errors)} failed")
    return soak


def growth_mib(series: Sequence[tuple[float, float]]) -> float:
    """Return the growth of the memory over the soak: the Theil-Sen slope (robust against single peaks) times the duration, if the slope is
    shown to be positive.

    The first window is left out, because caches fill in it. With too few windows for a slope, return the last value less the first.
    """
    later = series[1:]
    if len(later) < 2:
        return 0.0
    times, values = np.array([t for t, _ in later]), np.array([m for _, m in later])
    if len(later) < 5:
        return float(values[-1] - values[0])
    slope, _, low, _ = theilslopes(values, times, alpha=0.95)
    return float(slope * (times[-1] - times[0])) if low > 0 else 0.0


def judge_soak(soak: Soak, growth_pct: float) -> Condition:
    """Return the condition that the soak had no failure and no growing memory.

    If the card does not report a service's memory, the memory of the whole device is used, which grows with the service's. If the card
    reports neither, growth cannot be ruled out, and the condition does not hold.
    """
    problems = []
    if soak.failure is not None:
        problems.append(f"{soak.failure['kind']} after {soak.seconds:.0f} s: {soak.failure['message']}")
    if soak.errors:
        counted = ", ".join(f"{number} {error}" for error, number in Counter(soak.errors).items())
        problems.append(f"failed of {soak.n_requests} requests: {counted}")
    if soak.oom_events:
        problems.append(f"{soak.oom_events} out-of-memory events")
    unknown = [name for name, windows in soak.memory_unknown.items() if windows > len(soak.memory_mib.get(name, ()))]
    judged = {name: series for name, series in soak.memory_mib.items() if name not in unknown}
    fine = f"{soak.seconds:.0f} s under load: {soak.n_requests} requests without a failure, no growing memory"
    if unknown and len(soak.device_memory_mib) >= max(soak.memory_unknown[name] for name in unknown) / 2:
        judged["the device"] = soak.device_memory_mib
        fine += f" ({' and '.join(unknown)}: judged by the memory of the whole device, because the card does not report a process's)"
    elif unknown and soak.failure is None:
        problems.append(
            f"whether the memory of {' and '.join(unknown)} grows is unknown: the card reports neither a process's memory nor its own. "
            "Promote from a machine whose card does"
        )
    for name, series in judged.items():
        grown, allowed = growth_mib(series), max(_SLACK_MIB, growth_pct / 100.0 * float(np.median([m for _, m in series])))
        if grown > allowed:
            problems.append(f"{name}'s memory grew by {grown:.0f} MiB in {soak.seconds:.0f} s (allowed {allowed:.0f})")
    return Condition("soak", not problems, "; ".join(problems) or fine)
