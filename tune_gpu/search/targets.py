"""What the models are fitted to: measurements, on a scale that suits the model.

A table of configurations has jumps, and an outlier must not bend a fit: there only the order of the measurements counts (normal scores).
Where parameters are continuous the value says how near the best is: there its shape is kept, only bent towards a normal distribution
(as in HEBO, Cowen-Rivers et al. 2022).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special
from sklearn.preprocessing import PowerTransformer

Array = NDArray[np.float64]
_LEAST = 5
"""Fewer values say nothing of a distribution."""


def normal_scores(values: Array) -> Array:
    """Ranks as quantiles of the standard normal (Blom 1958); equal values have equal scores."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    rank = (upper - 0.5 * (counts - 1))[inverse]
    return np.asarray(special.ndtri((rank - 0.375) / (len(values) + 0.25)))


def power_scores(values: Array) -> Array:
    """Mean 0, variance 1, the skew taken out (Yeo and Johnson 2000); in the order of the values. Normal scores where that cannot be done."""
    spread = float(np.std(values))
    if len(values) < _LEAST or not spread > 0.0:
        return normal_scores(values)
    scores = PowerTransformer(method="yeo-johnson").fit_transform(((values - np.mean(values)) / spread)[:, None])[:, 0]
    # An extreme power may leave no difference between the best, or no number at all.
    kept = bool(np.isfinite(scores).all()) and len(np.unique(scores)) == len(np.unique(values))
    return np.asarray(scores) if kept else normal_scores(values)
