"""Priors of a Gaussian process: densities over the logarithms of its length scales, signal variance and noise.

A parameter's range has length 1, and two categories are at distance 1. If length scales may grow freely, as for hundreds of parameters
(Hvarfner et al. 2024), then after ten or twenty evaluations the process wrongly takes most parameters for irrelevant, with high confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Prior = Callable[[Array], tuple[float, Array]]
"""Logarithms of length scales, signal variance and noise variance -> logarithm of the density (up to a constant), and its gradient."""
_LENGTH_SCALE, _CATEGORY, _SIGNAL, _NOISE = (0.5, 0.7), (0.9, 0.85), (0.0, 1.0), (math.log(1e-3), 2.0)
"""Mean and standard deviation of the logarithms."""
_FAR, _NOISE_SHAPE, _NOISE_RATE = 0.1, 0.1, 30.0
"""`_NOISE_SHAPE` is the shape of the Gamma distribution minus 1."""


def log_normal(groups: NDArray[np.int64]) -> Prior:
    """Return a prior for length scales near the width of the space, and wider for categories: few evaluations show which of five categories
    matters.

    Args:
        groups: feature column -> parameter; a category has several columns.
    """
    lengths = [_CATEGORY if columns > 1 else _LENGTH_SCALE for columns in np.bincount(groups)]
    mean, sd = np.array([*lengths, _SIGNAL, _NOISE]).T
    return partial(_log_normal, mean, sd)


def noisy(n: int) -> Prior:
    """Return a prior for continuous parameters with noisy measurements, where the likelihood alone would take most parameters for
    irrelevant.

    Short length scales are as likely as long ones, and very long ones are excluded. The priors are those of Optuna's GPSampler: density
    ~ exp(-0.1 (l^2 + l^-2)) for a length scale, Gamma(2, 1) for the signal variance, Gamma(1.1, rate 30) for the noise variance.

    Args:
        n: number of parameters.
    """
    return partial(_noisy, n)


def _log_normal(mean: Array, sd: Array, theta: Array) -> tuple[float, Array]:
    off = (theta - mean) / sd
    return -0.5 * float(off @ off), -off / sd


def _noisy(n: int, theta: Array) -> tuple[float, Array]:
    squares, (signal, noise) = np.exp(2.0 * theta[:n]), np.exp(theta[n:])
    value = -_FAR * float(np.sum(squares + 1.0 / squares)) + theta[n] - signal + _NOISE_SHAPE * theta[n + 1] - _NOISE_RATE * noise
    slope = np.concatenate([-2.0 * _FAR * (squares - 1.0 / squares), [1.0 - signal, _NOISE_SHAPE - _NOISE_RATE * noise]])
    return float(value), slope
