"""Arithmetic for one number and for an array of 100,000: plain Python for scalars (fast), numpy for arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Number: TypeAlias = Any
"""A float, or a numpy array of them. Every formula takes and returns both."""

MIB = 2**20
GIB = 2**30


def is_array(value: Number) -> bool:
    """Return True if numpy must compute it."""
    return isinstance(value, np.ndarray)


def maximum(left: Number, right: Number) -> Number:
    """Return the larger, element by element."""
    return np.maximum(left, right) if is_array(left) or is_array(right) else max(left, right)


def minimum(left: Number, right: Number) -> Number:
    """Return the smaller, element by element."""
    return np.minimum(left, right) if is_array(left) or is_array(right) else min(left, right)


def where(condition: Number, then: Number, otherwise: Number) -> Number:
    """Return `then` where the condition holds, else `otherwise`."""
    if is_array(condition) or is_array(then) or is_array(otherwise):
        return np.where(condition, then, otherwise)
    return then if condition else otherwise


def both(left: Number, right: Number) -> Number:
    """Return the logical and."""
    return np.logical_and(left, right) if is_array(left) or is_array(right) else bool(left and right)


def ceil_div(left: Number, right: Number) -> Number:
    """Return the quotient, rounded up."""
    return -((-left) // right)


def root_sum_square(*parts: Number) -> Number:
    """Return the sum of independent uncertainties."""
    return sum(part**2 for part in parts) ** 0.5
