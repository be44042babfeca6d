"""The effect of one arm against another with its confidence interval, by a paired bootstrap over rounds and over turns.

Turns of one deployment resemble each other (they share a queue and the deployment's luck), so whole rounds are resampled, both arms together
(block bootstrap: Davison and Hinkley 1997, section 3.8). A few rounds can agree by chance, so the turns within the rounds are resampled as
well, paired by arrival, and the larger of the two standard errors counts. That of n rounds is inflated by sqrt(n / (n - 1)), because
resampling n understates it. The interval is the estimate ± the standard error times Student's t with rounds - 1 degrees of freedom.
Ratios are treated as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tune_gpu.compare.metrics import ComparedMetric, Floats
from tune_gpu.compare.samples import Pair
from tune_gpu.config.rules import bounds_of
from tune_gpu.config.schema import ConfirmSettings

LEAST_ROUNDS = int(bounds_of(ConfirmSettings, "min_rounds").least or 0)
"""Fewest rounds of an interval."""
RESAMPLES = 1000
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Effect:
    """Our arm against theirs: in per cent of theirs for a relative metric, else a difference in its unit."""

    estimate: float
    low: float | None
    high: float | None
    """Ends of the interval; None if there are too few rounds for one."""
    ours: float
    theirs: float
    n_rounds: int
    n_pairs: int
    """Pairs of turns, or of rounds for a metric that is measured once a round."""
    confidence: float
    n_words: int | None = None
    n_clips: int | None = None
    """Different words and clips that an error rate rests on; None for another metric, or if the clips are not known."""


def effect_of(pairs: Sequence[Pair], metric: ComparedMetric, *, alpha: float, seed: int = 0, resamples: int = RESAMPLES) -> Effect | None:
    """Return the effect with its interval at confidence 1 - alpha, or None if nothing was measured in both arms (or a ratio is
    undefined)."""
    rows = [row for row in metric.rows(pairs) if len(row[0])]
    if not rows:
        return None
    sizes = [len(ours) for ours, _ in rows]
    ours, theirs = np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
    once = np.ones((1, len(ours)), dtype=np.int64)
    a, b = float(metric.statistic(ours, once)[0]), float(metric.statistic(theirs, once)[0])
    if metric.relative and not (a > 0 and b > 0):
        return None
    estimate = math.log(a / b) if metric.relative else a - b
    margin = None
    if len(rows) >= LEAST_ROUNDS:
        spread = _spread(metric, ours, theirs, sizes, np.random.default_rng([seed, len(ours)]), resamples)
        margin = spread * float(stdtrit(len(rows) - 1, 1.0 - alpha / 2.0))
    scale = _as_percent if metric.relative else float
    low, high = (None, None) if margin is None else (scale(estimate - margin), scale(estimate + margin))
    return Effect(scale(estimate), low, high, a, b, len(rows), len(ours), 1.0 - alpha, *metric.words_of(pairs))


def _spread(metric: ComparedMetric, ours: Floats, theirs: Floats, sizes: Sequence[int], rng: np.random.Generator, resamples: int) -> float:
    def spread(counts: Counts) -> float:
        a, b = metric.statistic(ours, counts), metric.statistic(theirs, counts)
        return float(np.std(np.log(a / b) if metric.relative else a - b))

    by_round = spread(rounds_resampled(sizes, resamples, rng)) * math.sqrt(len(sizes) / (len(sizes) - 1))
    return by_round if max(sizes) == 1 else max(by_round, spread(turns_resampled(sizes, resamples, rng)))


def rounds_resampled(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Counts:
    """Return how often each resample holds each turn when whole rounds are drawn with replacement."""
    n = len(sizes)
    return np.repeat(rng.multinomial(n, np.full(n, 1.0 / n), size=resamples), sizes, axis=1)


def turns_resampled(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Counts:
    """Return how often each resample holds each turn when every round stays and its turns are drawn with replacement."""
    return np.concatenate([rng.multinomial(size, np.full(size, 1.0 / size), size=resamples) for size in sizes], axis=1)


def _as_percent(log_ratio: float) -> float:
    return 100.0 * math.expm1(min(log_ratio, 50.0))
