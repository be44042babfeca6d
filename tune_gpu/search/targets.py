"""What the models are fitted to: measurements, on a scale that suits the model.

A table of configurations has jumps, and an outlier must not bend a fit: there only the order of the measurements counts (normal scores).
Where parameters are continuous the value says how near the best is: there its shape is kept, only bent towards a normal distribution
(as in HEBO, Cowen-Rivers et al. 2022).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]
_LEAST = 5
"""Fewer values say nothing of a distribution."""
_POWERS = (-100.0, 102.0)
"""Where the power is looked for; 1 leaves everything as it is."""


def normal_scores(values: Array) -> Array:
    """Return ranks as quantiles of the standard normal (Blom 1958); equal values have equal scores."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    rank = (upper - 0.5 * (counts - 1))[inverse]
    return np.asarray(special.ndtri((rank - 0.375) / (len(values) + 0.25)))


def power_scores(values: Array) -> Array:
    """Return the values with mean 0, variance 1 and the skew taken out (Yeo and Johnson 2000); in the order of the values. Normal scores
    where that cannot be done."""
    spread = float(np.std(values))
    if len(values) < _LEAST or not spread > 0.0:
        return normal_scores(values)
    standard = (values - np.mean(values)) / spread
    jacobian = float(np.sum(np.copysign(np.log1p(np.abs(standard)), standard)))

    def loss(power: float) -> float:
        """Return minus the logarithm of the likelihood that the bent values are normal."""
        return 0.5 * len(values) * math.log(max(float(np.var(_bent(standard, power))), 1e-300)) - (power - 1.0) * jacobian

    bent = _bent(standard, optimize.fminbound(loss, *_POWERS))
    scores = (bent - np.mean(bent)) / max(float(np.std(bent)), 1e-300)
    # An extreme power may leave no difference between the best, or no number at all.
    kept = bool(np.isfinite(scores).all()) and len(np.unique(scores)) == len(np.unique(values))
    return scores if kept else normal_scores(values)


def _bent(values: Array, power: float) -> Array:
    """Return Yeo and Johnson's transformation: Box and Cox's of 1 + value, and the mirrored one below 0."""
    return np.copysign(special.boxcox1p(np.abs(values), np.where(values < 0.0, 2.0 - power, power)), values)
