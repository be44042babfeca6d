"""The standard error of a fitness: each part of the measurement is resampled in the units in which it was taken.

- Traffic and device: windows are left out in turn. A single window is cut into groups of turns instead (a delete-a-group jackknife, Kott 2001;
  leaving out groups also suits percentiles, for which leaving out single samples is not consistent: Shao and Tu 1995, 2.3).
- Capacity: the ramp's own standard error, carried through the objective.
- Word error rate: clips are left out in turn, with all their noisy versions.
The parts are independent, so their variances add up. Another deployment hears the same clips: the clips' part is one for what else callers may
say, so each clip's share is kept, and configurations are compared clip by clip.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tune_gpu.metrics import CAPACITY
from tune_gpu.workload.window import WindowResult

Score = Callable[[Mapping[str, Any]], float | None]
"""Fitness without limits, given what replaces the metrics of the evaluation."""
GROUPS = 8
"""Groups of turns of a single window."""


@dataclass(frozen=True)
class FitnessErrors:
    """Parts of the standard error of one evaluation's fitness. Null is what could not be resampled."""

    windows: float | None
    capacity: float | None = 0.0
    clips: Mapping[str, float] | None = field(default_factory=dict)
    """Each clip's share: the squares add up to the variance."""

    @property
    def wer(self) -> float | None:
        """Return the standard error from the clips."""
        return None if self.clips is None else sum(share**2 for share in self.clips.values()) ** 0.5

    @property
    def total(self) -> float | None:
        """Return the standard error of the fitness; null without the windows' part, and where the parts that are known are 0 and others are not known."""
        parts = (self.windows, self.capacity, self.wer)
        known = sum(part**2 for part in parts if part is not None) ** 0.5
        return None if self.windows is None or (known == 0.0 and None in parts) else known

    def as_metrics(self) -> dict[str, Any]:
        """Return them as the artifacts have them."""
        return {
            "fitness_errors": {"windows": self.windows, "capacity": self.capacity, "wer": self.wer},
            "fitness_by_clip": None if self.clips is None else dict(self.clips),
        }


def jackknife(left_out: Sequence[float | None]) -> float | None:
    """Return the standard error of a statistic from its values without each unit in turn (Tukey 1958; Efron and Tibshirani 1993, 11.5).

    The spread of the windows' own values would be that of another statistic: the percentiles of a window are of fewer samples than those of all.
    Null without two values, and where there is a unit without which the statistic is unknown.
    """
    known = [value for value in left_out if value is not None]
    if len(known) < 2 or len(known) < len(left_out):
        return None
    return (len(known) - 1) / len(known) ** 0.5 * statistics.stdev(known)


def groups_left_out(window: WindowResult) -> list[WindowResult]:
    """Return the window without each group of its turns in turn; none for a single turn."""
    groups = min(GROUPS, len(window.turns))
    left = [[turn for at, turn in enumerate(window.turns) if at % groups != one] for one in range(groups)] if groups > 1 else []
    return [replace(window, turns=turns) for turns in left]


def capacity_error(score: Score, continuous: float | None, stderr: float | None, *, weighs: bool) -> float | None:
    """Return the part of the ramp: half of how far the fitness goes from one standard error below the capacity to one above."""
    if not weighs or continuous is None:
        return 0.0
    if stderr is None:
        return None
    low, high = (score({CAPACITY.name: max(0.0, continuous + sign * stderr)}) for sign in (-1.0, 1.0))
    return None if low is None or high is None else abs(high - low) / 2.0


def clip_shares(score: Score, without: Mapping[str, Mapping[str, float]], *, weighs: bool) -> dict[str, float] | None:
    """Return each clip's share of the jackknife over clips; null where there are not two.

    Args:
        score: fitness for other metrics.
        without: the error rates without each clip, by their names.
        weighs: whether any of the rates counts at all.
    """
    if not weighs:
        return {}
    values = {clip: score(rates) for clip, rates in without.items()}
    known = {clip: value for clip, value in values.items() if value is not None}
    if len(known) < 2 or len(known) < len(values):
        return None
    mean, factor = statistics.fmean(known.values()), ((len(known) - 1) / len(known)) ** 0.5
    return {clip: factor * (mean - value) for clip, value in known.items()}
