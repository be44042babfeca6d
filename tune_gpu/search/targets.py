"""Transform measurements to the values that the models are fitted to.

A table of configurations has jumps, and an outlier must not distort a fit. There only the order of the measurements is used (normal
scores). With continuous parameters the value shows how near the best is. There the values are transformed monotonically towards a normal
distribution (as in HEBO, Cowen-Rivers et al. 2022).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]
_LEAST = 5
"""Fewest values from which a distribution is estimated."""
_POWERS = (-100.0, 102.0)
"""Bounds of the power. A power of 1 leaves the values unchanged."""


def normal_scores(values: Array) -> Array:
    """Return ranks as quantiles of the standard normal distribution (Blom 1958). Equal values have equal scores."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    rank = (upper - 0.5 * (counts - 1))[inverse]
    return np.asarray(special.ndtri((rank - 0.375) / (len(values) + 0.25)))


def power_scores(values: Array) -> Array:
    """Return the values without skew, with mean 0 and variance 1 (Yeo and Johnson 2000), or normal scores if that is impossible."""
    spread = float(np.std(values))
    if len(values) < _LEAST or not spread > 0.0:
        return normal_scores(values)
    standard = (values - np.mean(values)) / spread
    jacobian = float(np.sum(np.copysign(np.log1p(np.abs(standard)), standard)))

    def loss(power: float) -> float:
        """Return the negative log-likelihood of the transformed values under a normal distribution."""
        return 0.5 * len(values) * math.log(max(float(np.var(_bent(standard, power))), 1e-300)) - (power - 1.0) * jacobian

    bent = _bent(standard, optimize.fminbound(loss, *_POWERS))
    scores = (bent - np.mean(bent)) / max(float(np.std(bent)), 1e-300)
    # An extreme power may make the best values equal, or NaN.
    kept = bool(np.isfinite(scores).all()) and len(np.unique(scores)) == len(np.unique(values))
    return scores if kept else normal_scores(values)


def _bent(values: Array, power: float) -> Array:
    """Return the transformation of Yeo and Johnson: that of Box and Cox for 1 + value, mirrored below 0."""
    return np.copysign(special.boxcox1p(np.abs(values), np.where(values < 0.0, 2.0 - power, power)), values)
