"""Detect saturation: more turns arrive than are served, so that the queue grows through the whole window.

The windows of an evaluation are judged together; each begins and ends with an empty queue. They are saturated if all of this holds:
- fewer than three quarters of the turns offered in a window were answered by the time its arrivals ended;
- turns that were due later took longer, by Mann and Kendall's test (one-sided, 2.5 %). A turn that was not answered took longest;
- a turn that was due a second later took at least a quarter of a second longer (Theil and Sen's slope over the answered turns), as it does if a
  quarter more arrives than is served, and over a window this is at least what the latency was at its start.
- the last answer came, on average, two fifths of a window or more after the arrivals had ended. A turn that was not answered counts as a window.
A queue that has its limit grows from the empty start of a window, too. In simulated queues of exponential services these rules find 93 % of those
with twice as many arrivals as service, and 1 % of those at 70 % of it, from some 30 turns; from 9 turns 41 and 9 %.
The latencies of a saturated evaluation say how long its windows are, and not how long a caller waits.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from tune_gpu.workload.window import WindowResult

_SERVED, _SLOPE, _LATE, _Z = 0.75, 0.25, 0.4, 1.96
"""Least share of the turns that is answered in time, least slope, least time to the last answer in windows, and the quantile of the test."""

Due = tuple[float, float]
"""When a turn was due after the start of its window, and its latency (infinite without an answer), in seconds."""


@dataclass(frozen=True)
class Saturation:
    """What the turns of an evaluation say of its queue."""

    saturated: bool | None
    """None where turns were answered too late, and are too few to show a trend."""
    offered: int
    """Turns that were due in its windows."""
    answered_in_time: int
    """Of them, those that were answered before the arrivals of their window ended."""
    growth_ms_per_s: float | None
    """How much longer a turn takes that is due a second later; None without two answers in a window."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as the artifacts have it."""
        return asdict(self)


def saturation_of(windows: Sequence[WindowResult]) -> Saturation | None:
    """Return what these windows show; None without a turn, and for windows that do not know their arrivals' end."""
    known = [(window.offered_s, _turns(window)) for window in windows if window.offered_s > 0.0]
    offered = sum(len(turns) for _, turns in known)
    if not offered:
        return None
    in_time = sum(due + latency <= seconds for seconds, turns in known for due, latency in turns)
    slope = _slope([turns for _, turns in known])
    trend, most = _trend([turns for _, turns in known])
    growing = slope is not None and slope >= _SLOPE and trend > _Z
    grown = slope is not None and slope * statistics.fmean(seconds for seconds, _ in known) >= _at_start(slope, [turn for _, turns in known for turn in turns])
    late = statistics.fmean(_late_s(seconds, turns) / seconds for seconds, turns in known) >= _LATE
    behind = late and in_time < _SERVED * offered
    saturated = None if behind and most <= _Z else behind and growing and grown
    return Saturation(saturated, offered, in_time, None if slope is None else round(1e3 * slope, 1))


def _turns(window: WindowResult) -> list[Due]:
    """Return the turns in the order in which they were due. Those that the end of the window cut were not answered."""
    answered = [(turn.due - window.started, math.inf if turn.answered_at is None else turn.answered_at - turn.due) for turn in window.turns]
    return sorted([*answered, *((turn.due - window.started, math.inf) for turn in window.censored)])


def _late_s(seconds: float, turns: Sequence[Due]) -> float:
    """Return how long after the end of the arrivals the last turn was answered; a whole window if one never was."""
    return max((min(due + latency - seconds, seconds) for due, latency in turns if due + latency > seconds), default=0.0)


def _trend(windows: Sequence[Sequence[Due]]) -> tuple[float, float]:
    """Return Mann and Kendall's statistic over all windows in standard deviations, corrected for continuity and ties, and the most that it can be."""
    score = variance = most = whole = 0.0
    for turns in windows:
        score += sum((later > earlier) - (later < earlier) for (_, earlier), (_, later) in combinations(turns, 2))
        ties = Counter(latency for _, latency in turns).values()
        variance += (_variance(len(turns)) - sum(map(_variance, ties))) / 18.0
        most, whole = most + math.comb(len(turns), 2), whole + _variance(len(turns)) / 18.0
    return _in_deviations(score, variance), _in_deviations(most, whole)


def _in_deviations(score: float, variance: float) -> float:
    return (score - 1.0) / math.sqrt(variance) if score > 0.0 and variance > 0.0 else 0.0


def _variance(n: int) -> float:
    return n * (n - 1.0) * (2.0 * n + 5.0)


def _slope(windows: Sequence[Sequence[Due]]) -> float | None:
    """Return the median slope between two answered turns of one window."""
    slopes = [
        (later - earlier) / (at - before)
        for turns in windows
        for (before, earlier), (at, later) in combinations([turn for turn in turns if math.isfinite(turn[1])], 2)
        if at > before
    ]
    return statistics.median(slopes) if slopes else None


def _at_start(slope: float, turns: Sequence[Due]) -> float:
    return statistics.median(latency - slope * due for due, latency in turns if math.isfinite(latency))
