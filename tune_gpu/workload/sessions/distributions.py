"""Draw from distributions by the inverse of their cumulative distribution function."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

from tune_gpu.config.distributions import Distribution

_Z95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""
_GRID = 4096
"""Points at which the mean of a distribution is computed."""


def quantile(of: Distribution, u: np.ndarray) -> np.ndarray:
    """Return the value below which a share `u` of the draws lies, for each `u` in (0, 1). Limits of the distribution are applied."""
    values = _unlimited(of, np.asarray(u, dtype=np.float64))
    if of.least is None and of.most is None:
        return values
    return np.clip(values, of.least, of.most)


def counts(of: Distribution, u: np.ndarray, least: int = 1, most: int = 10**6) -> np.ndarray:
    """Return draws as whole numbers within limits."""
    return np.clip(np.rint(quantile(of, u)), least, most).astype(np.int64)


def mean(of: Distribution) -> float:
    """Return the mean of the draws, computed on a grid of quantiles."""
    return float(quantile(of, (np.arange(_GRID) + 0.5) / _GRID).mean())


def _unlimited(of: Distribution, u: np.ndarray) -> np.ndarray:
    if of.name == "constant":
        return np.full(u.shape, _given(of.value))
    if of.name == "uniform":
        return _given(of.least) + u * (_given(of.most) - _given(of.least))
    if of.name == "lognormal":
        median = _given(of.median)
        return np.asarray(median * np.exp(np.log(_given(of.p95) / median) / _Z95 * special.ndtri(u)))
    if of.name == "exponential":
        return -_given(of.mean) * np.log1p(-u)
    if of.name == "poisson":
        return np.asarray(np.ceil(np.maximum(0.0, special.pdtrik(u, _given(of.mean)))))
    return np.searchsorted(_zipf(_given(of.alpha), int(_given(of.most))), u).astype(np.float64) + 1.0


@lru_cache(maxsize=64)
def _zipf(alpha: float, most: int) -> np.ndarray:
    """Return the cumulative distribution of a Zipf distribution over 1 to `most`."""
    weights = np.arange(1, most + 1, dtype=np.float64) ** -alpha
    return (np.cumsum(weights) / weights.sum())[:-1]


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("the distribution lacks a number that it needs")
    return value
