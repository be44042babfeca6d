"""Limits of numeric settings: each is declared once, beside its setting in `config.py`, and every check reads it from there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from tune_gpu.common.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """What a number must be; null for no limit on that side."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number lies within; NaN does not."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def allowed(self) -> str:
        """For a message."""
        least, above, most, below = (None if limit is None else shown(limit) for limit in (self.least, self.above, self.most, self.below))
        if least is not None:
            return f"{least} to {most}" if most is not None else f"{least} to less than {below}" if below is not None else f"{least} or more"
        words = (("above", above), ("at most", most), ("below", below))
        return " and ".join(f"{word} {limit}" for word, limit in words if limit is not None)

    def check(self, name: str, value: float) -> None:
        """Raises UserError that names the setting, what was given and what is allowed."""
        if not self.holds(value):
            given = value if self.most is None else shown(value)  # of a share 0 is 0, not 0.0
            raise UserError(f"{name}={given}: allowed is {self.allowed}")


def bounded(
    default: Any, *, least: float | None = None, above: float | None = None, most: float | None = None, below: float | None = None
) -> Any:
    """A field of a settings class with its limits. Null, where the setting may be null, is always allowed."""
    return field(default=default, metadata={"bounds": Bounds(least, above, most, below)})


@cache
def bounds_of(schema: type, name: str) -> Bounds:
    """The limits of a setting of this class; without any limit where none is declared."""
    return next((each.metadata["bounds"] for each in fields(schema) if each.name == name and "bounds" in each.metadata), Bounds())


def shown(value: float) -> str:
    """A number as a user would type it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def check_numbers(settings: Any, prefix: str = "") -> None:
    """Check every number among these settings. What limits several together is checked where it is known (`tournament.check`, say).

    Raises:
        UserError: a number that is not finite, or outside its limits.
    """
    for name, value, bounds in _numbers(settings, prefix):
        if not math.isfinite(value):
            raise UserError(f"{name}={value}: allowed is a finite number")
        if bounds is not None:
            bounds.check(name, value)


def _numbers(settings: Any, prefix: str) -> Iterator[tuple[str, float, Bounds | None]]:
    """Every number, by its dotted name."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{each.name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + each.name, value, each.metadata.get("bounds")
