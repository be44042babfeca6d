"""Limits of numbers, and their wording in messages."""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.common.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """Limits of a number; None for no limit on that side."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return True if a number lies within the limits; NaN does not."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def allowed(self) -> str:
        """Return the limits as the words that follow "a number" in a message; "" without limits."""
        if self.least is not None and self.most is not None:
            return f"from {shown(self.least)} to {shown(self.most)}"
        words = (("of at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{word} {shown(limit)}" for word, limit in words if limit is not None)

    def check(self, name: str, value: float) -> None:
        """Raise UserError if the value is out of range. The message names the setting, the value and the range."""
        if not self.holds(value):
            given = value if self.most is None else shown(value)  # a share of 0.0 is printed as 0
            raise UserError(f"{name}={given}: out of range. Set a number {self.allowed}.")


def shown(value: float) -> str:
    """Return a number as a user would type it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
