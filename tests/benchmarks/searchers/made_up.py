"""Landscapes that were made up for what those that others measured have little of: configurations that fail, most of them or half.

`failing:NAME`; costs are exact, and a failure tells nothing but itself. The last three were not seen while the search was changed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from math import log2
from typing import Any

import numpy as np

Row = tuple[tuple[Any, ...], float]
_POWERS = [1, 2, 4, 8, 16, 32, 64]
_FAILS = math.nan


def _product(limit: int) -> Iterable[Row]:
    """What needs more than there is (memory, threads) fails; the more of it, the better."""
    for a, b, c, d, e in itertools.product(_POWERS, _POWERS, _POWERS, [1, 2, 3, 4], [0, 1]):
        size = a * b * c * d
        cost = 100.0 / size**0.7 * (1.0 + 0.2 * abs(log2(a) - 3.0) + 0.1 * abs(log2(b) - 1.0) + 0.1 * e)
        yield (a, b, c, d, e), cost if size <= limit else _FAILS


def _least(limit: int) -> Iterable[Row]:
    """Too little fails; the least that runs is best."""
    for a, b, c, d, e in itertools.product(_POWERS, _POWERS, _POWERS, [1, 2, 3, 4], [0, 1]):
        size = a * b * c * d
        cost = (size / limit) ** 0.7 * (1.0 + 0.2 * abs(log2(a) - 5.0) + 0.1 * abs(log2(b) - 4.0) + 0.1 * e)
        yield (a, b, c, d, e), cost if size >= limit else _FAILS


def _band() -> Iterable[Row]:
    """Nothing near an end of a range runs."""
    for values in itertools.product(range(9), repeat=4):
        runs = 3.0 <= sum(values) / 4.0 <= 6.0 and max(values) - min(values) <= 3
        yield values, 1.0 + 0.1 * sum((v - 5) ** 2 for v in values) + 0.05 * values[0] if runs else _FAILS


def _chance(share: float) -> Iterable[Row]:
    """There is nothing to learn of what fails."""
    rng = np.random.default_rng(0)
    for values in itertools.product(range(8), repeat=4):
        yield values, 1.0 + 0.1 * sum((v - 3) ** 2 for v in values) if rng.random() < share else _FAILS


def _block() -> Iterable[Row]:
    """A kernel's block: a whole number of warps, no more threads than 1024, no more registers than there are."""
    for a, b, c, d, e in itertools.product([*_POWERS, 128], [*_POWERS, 128], [1, 2, 4, 8], [1, 2, 4], [0, 1]):
        runs = 32 <= a * b <= 1024 and a * b % 32 == 0 and a * c * b * d <= 4096 and c * d <= 16
        yield (a, b, c, d, e), (
            1.0 + 0.15 * abs(log2(a) - 5.0) + 0.1 * abs(log2(b) - 2.0) + 0.2 * abs(log2(c * d) - 2.0) + 0.05 * e * (c - 2) ** 2 if runs else _FAILS)


def _memory() -> Iterable[Row]:
    """Tiles in shared memory, doubled by an option, and a kind that does not go with it."""
    factors = {"x": 1.0, "y": 1.1, "z": 0.9}
    sides = [16, 32, 48, 64, 96, 128]
    for a, b, c, d, e, f in itertools.product(sides, sides, [8, 16, 32, 64], [1, 2, 4], [0, 1], factors):
        runs = (a + b) * c * 4 * (1 + e) <= 16384 and a * b / (d * d) <= 2048 and not (f == "z" and e)
        cost = 1e3 / (a * b) ** 0.3 / (1.0 + 0.3 * e) * (1.0 + 0.1 * abs(log2(c) - 4.0)) * (1.0 + 0.1 * (d - 2) ** 2) * factors[f]
        yield (a, b, c, d, e, f), cost if runs else _FAILS


def _pairs() -> Iterable[Row]:
    """Names that do not go together."""
    factors = np.random.default_rng(3).lognormal(0.0, 0.4, (5, 5, 5))
    apart = {(0, 1), (1, 2), (2, 0), (3, 3), (4, 1), (0, 4), (2, 2), (3, 0)}
    for a, b, c, d in itertools.product(range(5), range(5), range(5), range(8)):
        runs = a != 3 and c != 0 and (a, b) not in apart and (c, a) not in apart
        yield (f"x{a}", f"y{b}", f"z{c}", d), float(factors[a, b, c]) * (1.0 + 0.1 * (d - 4) ** 2) if runs else _FAILS


def _diagonal() -> Iterable[Row]:
    """Two pairs of sizes that must be nearly equal."""
    for a, b, c, d in itertools.product(range(10), repeat=4):
        runs = abs(a - b) <= 1 and abs(c - d) <= 1
        yield (a, b, c, d), 1.0 + 0.05 * (a - 6) ** 2 + 0.1 * abs(b - 6) + 0.03 * (c - 2) ** 2 + 0.2 * abs(c - d) if runs else _FAILS


def _registers() -> Iterable[Row]:
    """Work a thread, width of its loads and stages of its pipeline share its registers; wide loads want whole rows."""
    for threads, work, width, stages, cached in itertools.product([32, 64, 96, 128, 192, 256, 384, 512], [1, 2, 3, 4, 6, 8, 12, 16], [1, 2, 4, 8], [1, 2, 3, 4, 5], ["no", "l1", "l2"]):
        registers = 16 + 6 * work * width + 8 * stages * (cached == "l1")
        runs = threads * registers <= 16384 and work % width == 0 and registers <= 160
        cost = (1.0 + 12.0 / (work * stages)) * (1.0 + 0.15 * abs(log2(threads / 128.0))) * (1.0 + 0.3 / width) * {"no": 1.1, "l1": 1.0, "l2": 1.05}[cached]
        yield (threads, work, width, stages, cached), cost if runs else _FAILS


def _islands() -> Iterable[Row]:
    """What runs lies in two places; the nearer to the end of all ranges is the better."""
    for values in itertools.product(range(8), repeat=5):
        low, high = max(values) <= 3, sum(v >= 5 for v in values) == 5
        yield values, (1.6 if low else 1.0) + 0.08 * sum((v - (1 if low else 6)) ** 2 for v in values) if low or high else _FAILS


MADE: dict[str, tuple[str, Callable[[], Iterable[Row]]]] = {
    "product": ("abcde", lambda: _product(60)), "half": ("abcde", lambda: _product(800)), "least": ("abcde", lambda: _least(20000)),
    "band": ("abcd", _band), "chance": ("abcd", lambda: _chance(0.1)), "block": ("abcde", _block), "memory": ("abcdef", _memory), "pairs": ("abcd", _pairs),
    "diagonal": ("abcd", _diagonal), "registers": ("abcde", _registers), "islands": ("abcde", _islands),
}
"""Name -> its parameters, and what makes the cost of each configuration; NaN for one that fails."""
