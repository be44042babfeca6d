"""What may still be proposed: not what has been, not what the known constraints forbid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.encoding import Array, Encoding

_ENUMERABLE = 20_000
_SCORED_WHOLE = 3000


class OpenSpace:
    """The configurations of a space, as rows of codes; a small space is held as a table.

    Args:
        encoding: of the space.
        rng: for random draws.
    """

    def __init__(self, encoding: Encoding, rng: np.random.Generator) -> None:
        self._encoding, self._rng = encoding, rng
        self._table = encoding.table(_ENUMERABLE)
        self._rows: NDArray[np.int64] | None = None if self._table is None else np.arange(len(self._table))
        """Of the table, what is drawn from; where all of it is scored, without what is taken or forbidden."""
        self.size = None if self._table is None else len(self._table)
        """How many configurations the table has; null where there is none."""
        self.scored_whole = self.size is not None and self.size <= _SCORED_WHOLE
        """Whether all that is open is few enough to be scored."""
        self._radix = np.concatenate([[1.0], np.cumprod(encoding.sizes[:-1] + 1.0)])
        self._listed = np.sort(self._numbers(self._table)) if encoding.space.listed is not None and self._table is not None else None
        self._taken: set[bytes] = set()
        self._forbidden: set[bytes] = set()

    def take(self, key: bytes) -> None:
        """Not to be proposed again."""
        self._taken.add(key)
        self._close(key)

    def give_back(self, key: bytes) -> None:
        """To be proposed again after all."""
        self._taken.discard(key)
        if self.scored_whole and self._table is not None and self._rows is not None:
            self._rows = np.union1d(self._rows, np.flatnonzero((self._table == np.frombuffer(key)).all(axis=1)))

    def _close(self, key: bytes) -> None:
        if self.scored_whole and self._table is not None and self._rows is not None:
            self._rows = self._rows[(self._table[self._rows] != np.frombuffer(key)).any(axis=1)]

    @property
    def forbidden(self) -> list[list[float]]:
        """Rows that were found to be against a constraint."""
        return sorted(np.frombuffer(key).tolist() for key in self._forbidden)

    def forbid(self, row: Array) -> None:
        """It was found to be against a constraint."""
        self._forbidden.add(row.tobytes())
        self._close(row.tobytes())

    def maybe(self, row: Array) -> bool:
        """Whether it is open, as far as is known (its constraints are not looked at)."""
        return row.tobytes() not in self._taken and row.tobytes() not in self._forbidden

    def admits(self, row: Array) -> bool:
        """Whether it may be proposed."""
        if not self.maybe(row):
            return False
        if self._encoding.space.allows(self._encoding.decode(row)):
            return True
        self.forbid(row)
        return False

    def random(self, count: int | None = None) -> Array:
        """Random configurations, open as far as is known; null: all of the table."""
        if self._rows is None or self._table is None:
            return self._encoding.random(count or 0, self._rng)
        if count is None or count >= len(self._rows):
            return self._table[self._rng.permutation(self._rows)]
        return self._table[self._rows[self._rng.choice(len(self._rows), size=count, replace=False)]]

    def listed(self, codes: Array) -> Array:
        """Those of the rows that the space lists, if it is a list."""
        if self._listed is None:
            return codes
        numbers = self._numbers(codes)
        at = np.searchsorted(self._listed, numbers).clip(max=len(self._listed) - 1)
        return codes[self._listed[at] == numbers]

    def _numbers(self, codes: Array) -> Array:
        return np.asarray((codes + 1.0) @ self._radix)

    def any_left(self) -> Array | None:
        """One that may be proposed, if any is found."""
        candidates = self.random(None if self._table is not None else 2000)
        return next((row for row in candidates if self.admits(row)), None)
