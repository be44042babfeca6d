"""Landscapes that were made up for what those that others measured have little of: most of the table costs the same.

`plateau:NAME`; what most services do while a knob is not what limits them. The last three were not seen while the search was changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from tests.benchmarks.searchers.made_up import Row


def _bowl(values: Sequence[int], middle: Sequence[int]) -> int:
    return sum((value - at) ** 2 for value, at in zip(values, middle, strict=True))


def _capped() -> Iterable[Row]:
    """A bowl whose rim is a time-out."""
    for values in itertools.product(range(9), repeat=4):
        yield values, min(1.0 + 0.05 * _bowl(values, (6, 2, 5, 3)), 1.6)


def _needle() -> Iterable[Row]:
    """All is one but for a small box."""
    for values in itertools.product(range(6), repeat=5):
        far = max(abs(value - at) for value, at in zip(values, (3, 1, 4, 2, 2), strict=True))
        yield values, 2.0 if far > 1 else 1.0 + 0.05 * _bowl(values, (3, 1, 4, 2, 2))


def _levels() -> Iterable[Row]:
    """Three levels, by names that go together."""
    for a, b, c, d, e in itertools.product("klmnop", "klmnop", "klmnop", range(6), range(4)):
        good = (a in "kl") + (b in "mn") + (d >= 4)
        yield (a, b, c, d, e), {3: 1.0, 2: 1.3}.get(good, 1.6)


def _switch() -> Iterable[Row]:
    """Nothing matters until a feature is switched on and has enough of everything."""
    for on, a, b, c, d in itertools.product(["off", "slow", "fast"], range(8), range(8), range(8), range(4)):
        works = on == "fast" and a >= 4 and b >= 3
        yield (on, a, b, c, d), 1.0 + 0.04 * abs(a - 6) + 0.03 * abs(b - 5) + 0.01 * c if works else 1.5 + 0.02 * (on == "slow")


def _idle() -> Iterable[Row]:
    """Of six parameters two matter, in steps."""
    for values in itertools.product(range(5), repeat=6):
        yield values, 1.0 + 0.25 * (values[1] < 3) + 0.15 * (values[4] > 1)


def _corner() -> Iterable[Row]:
    """All is one but for a corner, where less is better."""
    for values in itertools.product(range(7), repeat=5):
        yield values, min(1.8, 1.0 + 0.1 * sum(values))


def _ridge() -> Iterable[Row]:
    """A narrow ridge through a plain, which rises along it."""
    for a, b, c, d in itertools.product(range(10), range(10), range(5), "xyz"):
        yield (a, b, c, d), 1.7 if abs(a - b) > 1 else 1.0 + 0.05 * (9 - a) + 0.03 * abs(c - 2) + 0.02 * (d != "y")


def _two() -> Iterable[Row]:
    """Two holes, the deeper one smaller."""
    for values in itertools.product(range(8), repeat=4):
        yield values, min(2.0, 1.4 + 0.04 * _bowl(values, (1, 1, 2, 2)), 1.0 + 0.15 * _bowl(values, (6, 5, 6, 5)))


MADE: dict[str, tuple[str, Callable[[], Iterable[Row]]]] = {
    "capped": ("abcd", _capped), "needle": ("abcde", _needle), "levels": ("abcde", _levels), "switch": ("oabcd", _switch), "idle": ("abcdef", _idle),
    "corner": ("abcde", _corner), "ridge": ("abcd", _ridge), "two": ("abcd", _two),
}
