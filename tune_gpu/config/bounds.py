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
        """Return the limits in words, for a message."""
        least, above, most, below = (None if limit is None else shown(limit) for limit in (self.least, self.above, self.most, self.below))
        if least is not None:
            return f"{least} to {most}" if most is not None else f"{least} to less than {below}" if below is not None else f"{least} or more"
        words = (("above", above), ("at most", most), ("below", below))
        return " and ".join(f"{word} {limit}" for word, limit in words if limit is not None)

    def check(self, name: str, value: float) -> None:
        """Raise UserError that names the setting, what was given and what is allowed."""
        if not self.holds(value):
            given = value if self.most is None else shown(value)  # of a share 0 is 0, not 0.0
            raise UserError(f"{name}={given}: allowed is {self.allowed}")


def shown(value: float) -> str:
    """Return a number as a user would type it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
