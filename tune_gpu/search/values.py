"""Compare values of parameters, and represent values that JSON cannot hold.

A user may list anything: numbers, lists, functions. 1, 1.0 and True are three values, although Python calls them equal. A list has no hash.
A function cannot be written as JSON, and its `repr` differs from process to process.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

PLAIN = (str, int, float, bool, type(None))
"""Types that JSON restores unchanged."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
CLOSE = 1e-9
"""Largest relative difference between numbers that count as equal up to rounding."""


def to_builtin(value: Any) -> Any:
    """Return NumPy's scalars as Python's own types, because JSON supports only those."""
    return value.item() if isinstance(value, np.generic) else value


def identity(value: Any) -> tuple[type, Any]:
    """Return a key that is equal for identical plain values. All NaN have the same key, although NaN is not equal to itself."""
    return type(value), value if value == value else None


def identical(one: Any, other: Any) -> bool:
    """Return whether they are the same value."""
    if type(one) is not type(other):
        return False
    if type(one) in PLAIN:
        return identity(one) == identity(other)
    return one is other or (repr(one) == repr(other) and equal(one, other))


def equal(one: Any, other: Any) -> bool:
    """Return whether one may be given for the other: 1 for 1.0, but not for True; a list for a tuple, because JSON turns tuples into
    lists."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    try:
        return bool(_lists(one) == _lists(other))
    except (TypeError, ValueError, RuntimeError):  # comparing arrays or tensors gives no single answer
        return False


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def tuples_named(value: Any) -> Any:
    """Return the value with `{"tuple": [...]}` for each tuple, because JSON would turn it into a list."""
    if isinstance(value, tuple):
        return {"tuple": [tuples_named(item) for item in value]}
    if isinstance(value, dict):
        return {name: tuples_named(item) for name, item in value.items()}
    return [tuples_named(item) for item in value] if isinstance(value, list) else value


def tuples_again(value: Any) -> Any:
    """Reverse `tuples_named`."""
    if isinstance(value, dict):
        inner = {name: tuples_again(item) for name, item in value.items()}
        return tuple(inner["tuple"]) if set(inner) == {"tuple"} else inner
    return [tuples_again(item) for item in value] if isinstance(value, list) else value


def index_of(value: Any, values: Sequence[Any], known: Mapping[tuple[type, Any], int]) -> int | None:
    """Return the index of a value among these: by identity, else identical, else equal; None if it is absent. `known`: see `indices_by_identity`."""
    simple = type(value) in PLAIN
    if simple and (found := known.get(identity(value))) is not None:
        return found
    ways: tuple[Callable[[Any, Any], bool], ...] = (equal,) if simple else (operator.is_, identical, equal)
    return next((i for way in ways for i, other in enumerate(values) if way(value, other)), None)


def indices_by_identity(values: Sequence[Any]) -> dict[tuple[type, Any], int]:
    """Return the indices of the plain values among these, by identity."""
    return {identity(value): i for i, value in reversed(list(enumerate(values))) if type(value) in PLAIN}


def index_of_nearest(value: float, values: Sequence[Any]) -> int | None:
    """Return the index of the number that equals this one up to rounding (0.1 * 3 for 0.3), or None if there is none."""
    numbers = [(abs(value - other), i) for i, other in enumerate(values) if isinstance(other, (int, float)) and not isinstance(other, bool)]
    if not numbers or not math.isfinite(value):
        return None
    least = min((abs(values[i]) for _, i in numbers if values[i]), default=0.0)
    closest = min(numbers)[1]
    return closest if math.isclose(value, values[closest], rel_tol=CLOSE, abs_tol=CLOSE * least) else None


def distinct(values: Sequence[Any]) -> list[Any]:
    """Return the values in their order, without duplicates."""
    first = indices_by_identity(values)
    odd: list[Any] = []
    found: list[Any] = []
    for i, value in enumerate(values):
        new = first[identity(value)] == i if type(value) in PLAIN else not any(identical(value, other) for other in odd)
        if new:
            found.append(value)
            odd += [] if type(value) in PLAIN else [value]
    return found


class _Named:
    """Object with a given `repr`, which is the same in every process."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def described(value: Any) -> Any:
    """Return the value, or a stand-in for a fingerprint if its own `repr` differs from process to process."""
    if type(value) in PLAIN:
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return _Named(f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, (set, frozenset)):
        return _Named(f"{type(value).__name__} of {sorted(map(repr, map(described, value)))}")
    text = repr(value)
    return _Named(_ADDRESS.sub("", text)) if _ADDRESS.search(text) else value
