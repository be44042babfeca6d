"""Medians, their confidence intervals and the comparisons of the final table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def median_interval(values: Sequence[float], *, level: float = 0.95, resamples: int = 2000) -> tuple[float, float, float]:
    """Median and its percentile-bootstrap interval (Efron 1979)."""
    data = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).integers(len(data), size=(resamples, len(data)))
    medians = np.median(data[draws], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(data)), float(low), float(high)


def evaluations_to_reach(curves: Sequence[Sequence[float]], target: float) -> int | None:
    """The first evaluation at which the median over the seeds is at most `target`; null if it never is."""
    median = np.median(np.asarray(curves, dtype=float), axis=0)
    reached = np.flatnonzero(median <= target * (1 + 1e-12))
    return int(reached[0]) + 1 if len(reached) else None


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values."""
    return float(np.exp(np.mean(np.log(np.asarray(values, dtype=float)))))
