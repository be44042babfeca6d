"""Student distributions of means, differences and the next deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

Array = NDArray[np.float64]
_VAST = 1e9
"""Degrees of freedom in place of infinity, for which SciPy returns NaN."""


@dataclass(frozen=True)
class Student:
    """The distribution of one number."""

    mean: float
    stderr: float
    """Standard error, the scale of the distribution. Infinite if the number is unknown, 0 without noise."""
    freedom: float
    """Degrees of freedom."""

    def reach(self, confidence: float = 0.95) -> float:
        """Return half the width of the central interval."""
        return quantile(self.freedom, 0.5 + confidence / 2.0) * self.stderr if 0.0 < self.stderr < math.inf else self.stderr

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the central interval."""
        return self.mean - self.reach(confidence), self.mean + self.reach(confidence)

    def excludes_zero(self, alpha: float = 0.05) -> bool:
        """Return whether the central interval of 1 - alpha excludes 0."""
        return abs(self.mean) > self.reach(1.0 - alpha)


@dataclass(frozen=True)
class Students:
    """Several Student distributions, as columns."""

    means: Array
    stderrs: Array
    freedoms: Array

    @classmethod
    def of_mixture(cls, means: Array, variances: Array, doubts: Array, chances: Array) -> Students:
        """Approximate mixtures of normals, one per row, by matching the mean and the variance of the precision.

        A gamma-distributed precision gives a Student distribution, so this is exact if the variance is a scaled inverse chi-squared.

        Args:
            means: (numbers, components).
            variances: variances, of the same shape.
            doubts: variances of these variances, of the same shape.
            chances: probabilities (components,), with a sum of 1.
        """
        centres = means @ chances
        spreads = variances + (means - centres[:, None]) ** 2
        sure = spreads.max(axis=1) == 0.0
        precisions = 1.0 / np.where(sure[:, None], 1.0, spreads)
        expected = precisions @ chances
        spread = ((precisions / expected[:, None] - 1.0) ** 2 + doubts * precisions**2) @ chances
        return cls(centres, np.where(sure, 0.0, 1.0 / np.sqrt(expected)), np.minimum(2.0 / np.maximum(spread, 2.0 / _VAST), _VAST))

    def scaled(self, unit: float, shift: Array | float) -> Students:
        """Return the distributions in another unit, shifted by `shift` in the new unit."""
        return Students(self.means * unit + shift, self.stderrs * unit, self.freedoms)

    def __len__(self) -> int:
        """Return the number of distributions."""
        return len(self.means)

    def __getitem__(self, i: int) -> Student:
        """Return one distribution."""
        return Student(float(self.means[i]), float(self.stderrs[i]), float(self.freedoms[i]))

    def exclude_zero(self, alpha: float) -> NDArray[np.bool_]:
        """Return which central intervals of 1 - alpha exclude 0."""
        reach = np.where(self.stderrs > 0.0, stdtrit(np.minimum(self.freedoms, _VAST), 1.0 - alpha / 2.0), 0.0) * np.where(np.isinf(self.stderrs), 1.0, self.stderrs)
        return np.asarray((np.abs(self.means) > reach) & np.isfinite(self.stderrs))

    def above_zero(self) -> Array:
        """Return the probability that each number is above 0; one half for an exact 0."""
        sure = np.where(self.stderrs > 0.0, self.stderrs, 1.0)
        doubtful = stdtr(np.minimum(self.freedoms, _VAST), self.means / sure)
        return np.asarray(np.where(self.stderrs > 0.0, doubtful, 0.5 * (1.0 + np.sign(self.means))))


def quantile(freedom: float, level: float) -> float:
    """Return a quantile of the standard Student distribution."""
    return float(stdtrit(min(freedom, _VAST), level))
