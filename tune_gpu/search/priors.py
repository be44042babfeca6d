"""What is known of a Gaussian process before it is fitted: densities over the logarithms of its length scales, signal variance and noise.

A parameter's whole range is 1, and so are two categories apart. After ten or twenty evaluations a length scale that may grow freely, as where
there are hundreds of parameters (Hvarfner et al. 2024), takes most parameters for indifferent, and is sure of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Prior = Callable[[Array], tuple[float, Array]]
"""Logarithms of length scales, signal variance and noise variance -> logarithm of the density (but for a constant), and its gradient."""
_LENGTH_SCALE, _CATEGORY, _SIGNAL, _NOISE = (0.5, 0.7), (0.9, 0.85), (0.0, 1.0), (math.log(1e-3), 2.0)
"""Mean and standard deviation of the logarithms."""
_FAR, _NOISE_SHAPE, _NOISE_RATE = 0.1, 0.1, 30.0
"""The shape is that of the Gamma distribution less 1."""


def log_normal(groups: NDArray[np.int64]) -> Prior:
    """Length scales near the width of the space; of categories wider, for which of five matters, few of them tell.

    Args:
        groups: feature column -> parameter; a category has several columns.
    """
    lengths = [_CATEGORY if columns > 1 else _LENGTH_SCALE for columns in np.bincount(groups)]
    mean, sd = np.array([*lengths, _SIGNAL, _NOISE]).T
    return partial(_log_normal, mean, sd)


def noisy(n: int) -> Prior:
    """Return a prior for continuous parameters with noisy measurements, where the likelihood alone would call most parameters
    indifferent: short length scales are as likely as long ones, very long ones are out of the question. Those of Optuna's GPSampler:
    density ~ exp(-0.1 (l^2 + l^-2)) of a length scale, Gamma(2, 1) of the signal's variance, Gamma(1.1, rate 30) of the noise's.

    Args:
        n: parameters.
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
