"""Percentiles of raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """Percentiles of raw samples (linear interpolation between order statistics: Hyndman and Fan's type 7, NumPy's default)."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Distribution | None:
        """Return the distribution, or None without samples. Raise ValueError if a sample is not finite."""
        if not len(samples):
            return None
        values = np.asarray(samples, dtype=float)
        if not np.all(np.isfinite(values)):
            raise ValueError("a sample that is not a finite number is not a measurement")
        p50, p90, p95, p99 = (float(value) for value in np.percentile(values, [50, 90, 95, 99]))
        return cls(p50, p90, p95, p99, float(values.mean()), len(values))

    def at(self, percentile: int) -> float:
        """Return the percentile 50, 90, 95 or 99. Raise KeyError for another."""
        return {50: self.p50, 90: self.p90, 95: self.p95, 99: self.p99}[percentile]

    def as_dict(self) -> dict[str, float]:
        """Return the percentiles as the artifacts have them, rounded to a thousandth."""
        return {name: round(value, 3) for name, value in asdict(self).items()}
