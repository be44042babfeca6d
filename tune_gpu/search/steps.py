"""A range in steps whose values are computed, not stored: whole numbers up to 2^31, for example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.values import CLOSE, to_builtin

Array = NDArray[np.float64]
MANY = 1000
"""A range with more steps is searched like a continuous one, because its values cannot be enumerated."""


def digits(step: float) -> int:
    """Return the decimals to which multiples of the step are rounded, because 0.1 * 3 is not 0.3: twelve, or more for a tiny step."""
    return max(12, 6 - math.floor(math.log10(step)))


@dataclass(frozen=True)
class SteppedRange(Sequence[Any]):
    """`n` values from `low` on, at least two. A position is between 0 (the lowest) and 1 (the highest), logarithmic for a log range."""

    low: float
    step: float
    n: int
    log: bool = False
    """Logarithmic; then `low` is above 0."""

    def __len__(self) -> int:
        return self.n

    @property
    def many(self) -> bool:
        """Return whether the values are too many to be enumerated."""
        return self.n > MANY

    def __str__(self) -> str:
        return f"{self[0]} to {self[-1]} in steps of {self.step:g}"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.n))]
        if not -self.n <= index < self.n:
            raise IndexError(f"{index}: out of range, there are {self.n} values")
        return round(self.low + (int(index) % self.n) * self.step, digits(self.step))

    def __contains__(self, value: object) -> bool:
        return self.index_of(value) is not None

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the index of a value, as a list does. Raise ValueError if it is absent."""
        found = self.index_of(value)
        if found is None or found not in range(self.n)[start:stop]:
            raise ValueError(f"{value} is not among {self}")
        return found

    def index_of(self, value: object) -> int | None:
        """Return the index of a value, or None if it is absent."""
        found = self._nearest_to(value)
        return found if found is not None and self[found] == value else None

    def index_of_nearest(self, value: float) -> int | None:
        """Return the index of the value that equals this one up to rounding, or None if there is none."""
        found = self._nearest_to(value)
        return found if found is not None and math.isclose(value, self[found], rel_tol=CLOSE, abs_tol=CLOSE * self.step) else None

    def _nearest_to(self, value: object) -> int | None:
        value = to_builtin(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return None
        whole = isinstance(value, int) and isinstance(self.low, int) and isinstance(self.step, int)
        found = (int(value) - int(self.low)) // int(self.step) if whole else round((value - self.low) / self.step)
        return found if 0 <= found < self.n else None

    # For arrays: indices are whole numbers, as floats ---------------------------------------------------------------------------

    def positions(self, indices: Array) -> Array:
        """Return positions that are equal to the last bit for equal indices."""
        if not self.log:
            return np.asarray(indices / (self.n - 1))
        # `math.log` one by one: NumPy's result may differ in the last bit with the length of the array, but rows are identified by their bytes.
        low, width = math.log(self.low), self._width(self.n - 1)
        return np.array([(math.log(self.low + index * self.step) - low) / width for index in indices.tolist()])

    def nearest(self, positions: Array) -> Array:
        """Return the indices of the values nearest to these positions."""
        if not self.log:
            return self._within(np.rint(positions * (self.n - 1)))
        return self._within(np.rint(self.low * np.expm1(positions * self._width(self.n - 1)) / self.step))

    def drawn(self, shares: Array) -> Array:
        """Return the indices of random draws for these uniform numbers in [0, 1]. Each step (each logarithmic interval, in a log range) is
        equally likely."""
        if not self.log:
            return self._within(np.floor(shares * self.n))
        return self._within(np.floor(self.low * np.expm1(shares * self._width(self.n)) / self.step))

    def masses(self) -> Array:
        """Return the probability of each value of a log range in random draws."""
        return np.diff(np.log(self.low + np.arange(self.n + 1.0) * self.step)) / self._width(self.n)

    def moved(self, indices: Array, by: Array) -> Array:
        """Return indices moved by these distances in positions, always to another value: at least to the next one, and from an end back
        into the range."""
        out = ((indices == 0) & (by < 0.0)) | ((indices == self._last) & (by > 0.0))
        by = np.where(out, -by, by)
        there = self.nearest(np.clip(self.positions(indices) + by, 0.0, 1.0))
        next_one = indices + np.where((by < 0.0) | (indices == self._last), -1.0, 1.0)
        return np.where(there == indices, next_one, there)

    def _width(self, index: int) -> float:
        """Return the logarithmic width of a log range up to this index."""
        return math.log(self.low + index * self.step) - math.log(self.low)

    def _within(self, indices: Array) -> Array:
        return np.asarray(np.clip(indices, 0.0, self._last))

    @property
    def _last(self) -> float:
        """Return the highest index as a float, rounded down if it is too large to be exact."""
        last = float(self.n - 1)
        return last if last <= self.n - 1 else math.nextafter(last, 0.0)
