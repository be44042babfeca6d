"""Distributions as settings: a number, or a mapping such as `{distribution: lognormal, median: 2, p95: 12}`. They are drawn from in
`workload/sessions/distributions.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds, shown
from tune_gpu.config.rules import nearest

_NEEDS = {
    "constant": ("value",),
    "exponential": ("mean",),
    "lognormal": ("median", "p95"),
    "poisson": ("mean",),
    "uniform": ("least", "most"),
    "zipf": ("alpha", "most"),
}
"""Distribution -> the numbers that it must have."""
_LIMITS = ("least", "most")
"""Numbers that any distribution may have: a draw beyond them is set to them."""
_MOST_RANKS = 100_000
_EXAMPLE = "{distribution: lognormal, median: 2, p95: 12}"


@dataclass(frozen=True)
class Distribution:
    """A distribution of a quantity."""

    name: str
    value: float | None = None
    mean: float | None = None
    median: float | None = None
    p95: float | None = None
    alpha: float | None = None
    """Exponent of a Zipf distribution over 1, 2, … `most`."""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Drawn:
    """The rule of a setting that is a number or a distribution of numbers."""

    bounds: Bounds
    words: tuple[str, ...] = ()
    """Words that may stand in its place."""
    whole = True
    """A mapping of this setting is one value: a layer that gives it replaces it."""

    def check(self, name: str, value: Any) -> None:
        """Raise UserError if it is neither a number within the limits, nor a distribution whose numbers are, nor a word."""
        if isinstance(value, str) and value in self.words:
            return
        found = distribution_of(value, name, self.words)
        for key in ("value", "mean", "median", "p95", *_LIMITS):
            number = getattr(found, key)
            if number is not None:
                self.bounds.check(name if key == "value" and not isinstance(value, Mapping) else f"{name}.{key}", number)


def distribution_of(value: Any, name: str = "distribution", words: tuple[str, ...] = ()) -> Distribution:
    """Return the distribution that a setting names.

    Args:
        value: a number, or a mapping with the key `distribution`.
        name: of the setting, for messages.
        words: allowed in place of a number, for messages.

    Raises:
        UserError: it is not a distribution.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Distribution("constant", value=_number(name, value))
    if not isinstance(value, Mapping):
        others = f", one of {', '.join(words)}" if words else ""
        raise UserError(f"{name}={_short(value)}: not a number{nearest(str(value), words)}. Set a number{others}, or a mapping such as {_EXAMPLE}.")
    kind = value.get("distribution")
    if not isinstance(kind, str) or kind not in _NEEDS:
        state = "no key distribution" if kind is None else f"{_short(kind)}: no such distribution{nearest(str(kind), _NEEDS)}"
        raise UserError(f"{name}.distribution: {state}. Set one of {', '.join(_NEEDS)}.")
    numbers = {str(key): _number(f"{name}.{_short(key)}", given) for key, given in value.items() if key != "distribution"}
    needed = _NEEDS[kind]
    known = (*needed, *(limit for limit in _LIMITS if limit not in needed and kind != "constant"))
    for key in map(_short, numbers):
        if key not in known:
            raise UserError(f"{name}.{key}: not a number of {kind}{nearest(str(key), known)}. Use {', '.join(known)}.")
    if missing := [key for key in needed if key not in numbers]:
        raise UserError(f"{name}: {kind} without {missing[0]}. Set {', '.join(needed)}.")
    found = Distribution(kind, **numbers)
    _check_order(name, found)
    return found


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"{name}={_short(value)}: not a finite number. Set a number.")
    return float(value)


def _short(value: Any) -> str:
    """Return a value as one line of a message."""
    return " ".join(str(value).split())[:60]


def _check_order(name: str, found: Distribution) -> None:
    """Raise UserError for numbers that contradict one another."""
    if found.least is not None and found.most is not None and found.least > found.most:
        raise UserError(f"{name}.least={shown(found.least)}: above {name}.most={shown(found.most)}. Exchange them.")
    if found.name == "lognormal" and found.median is not None and found.p95 is not None:
        if found.median <= 0:
            raise UserError(f"{name}.median={shown(found.median)}: a lognormal distribution is of positive numbers. Set a number above 0.")
        if found.p95 < found.median:
            raise UserError(f"{name}.p95={shown(found.p95)}: below {name}.median={shown(found.median)}. Set at least the median.")
    if found.mean is not None and found.mean <= 0:
        raise UserError(f"{name}.mean={shown(found.mean)}: out of range. Set a number above 0.")
    if found.name == "zipf" and found.alpha is not None and found.most is not None:
        Bounds(above=0, most=10).check(f"{name}.alpha", found.alpha)
        Bounds(least=1, most=_MOST_RANKS).check(f"{name}.most", found.most)
