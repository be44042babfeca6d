"""The configurations that may still be proposed: neither proposed before nor forbidden by known constraints."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.search.encoding import Array, Encoding

_ENUMERABLE = 20_000
_SCORED_WHOLE = 3000
_TRIES, _ROUNDS = 2000, 10
"""Without a table: number of draws per round, and number of rounds before the space counts as exhausted. Known constraints may forbid all
but one in thousands."""


class OpenSpace:
    """The open configurations of a space, as rows of codes. A small space is stored as a table.

    Args:
        encoding: the space's encoding.
        rng: makes random draws.
    """

    def __init__(self, encoding: Encoding, rng: np.random.Generator) -> None:
        self._encoding, self._rng = encoding, rng
        self._table = encoding.table(_ENUMERABLE)
        self.size = 0 if self._table is None else len(self._table)
        """Number of configurations in the table; 0 without a table."""
        self.scored_whole = 0 < self.size <= _SCORED_WHOLE
        """Whether all open rows are few enough to be scored."""
        self._drawn = np.ones(self.size, dtype=bool)
        """Rows of the table that random draws use. If the whole table is scored, excluded and forbidden rows are left out."""
        self._radix = np.concatenate([[1.0], np.cumprod(encoding.sizes[:-1] + 1.0)])
        self._listed = self._members() if encoding.space.listed is not None else None
        self._excluded: set[bytes] = set()
        self._forbidden: set[bytes] = set()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the array, because it is modified and Ray delivers it as read-only memory."""
        self.__dict__.update(state | {"_drawn": state["_drawn"].copy()})

    def exclude(self, key: bytes) -> None:
        """Exclude the row from further proposals."""
        self._excluded.add(self._encoding.name(np.frombuffer(key)))
        self._draw(key, False)

    def readmit(self, key: bytes) -> None:
        """Admit the row to proposals again."""
        self._excluded.discard(self._encoding.name(np.frombuffer(key)))
        self._draw(key, True)

    def _draw(self, key: bytes, drawn: bool) -> None:
        if self.scored_whole and self._table is not None:
            self._drawn[(self._table == np.frombuffer(key)).all(axis=1)] = drawn

    @property
    def forbidden(self) -> list[list[float]]:
        """Return the rows that were found to violate a constraint."""
        return sorted(np.frombuffer(key).tolist() for key in self._forbidden)

    def forbid(self, row: Array) -> None:
        """Record that the row violates a constraint."""
        self._forbidden.add(row.tobytes())
        self._draw(row.tobytes(), False)

    def maybe(self, row: Array) -> bool:
        """Return whether the row may be open. Its constraints are not checked."""
        return self._encoding.name(row) not in self._excluded and row.tobytes() not in self._forbidden

    def admits(self, row: Array) -> bool:
        """Return whether the row may be proposed. Its constraints are checked."""
        if not self.maybe(row):
            return False
        if self._encoding.space.allows(self._encoding.decode(row)):
            return True
        self.forbid(row)
        return False

    def random(self, count: int) -> Array:
        """Return random rows that may be open, from a table at most all of its rows."""
        if self._table is None:
            return self._encoding.random(count, self._rng)
        rows = np.flatnonzero(self._drawn)
        if count >= len(rows):
            return self._table[self._rng.permutation(rows)]
        share = None if self._masses is None else self._masses[rows] / self._masses[rows].sum()
        return self._table[rows[self._rng.choice(len(rows), size=count, replace=False, p=share)]]

    @cached_property
    def _masses(self) -> Array | None:
        return None if self._table is None else self._encoding.masses(self._table)

    def listed(self, codes: Array) -> Array:
        """Return the rows that the space lists, or all of them if it has no list."""
        if self._listed is None:
            return codes
        if isinstance(self._listed, frozenset):
            return codes[np.array([row.tobytes() in self._listed for row in codes], dtype=bool)]
        numbers = self._numbers(codes)
        at = np.searchsorted(self._listed, numbers).clip(max=len(self._listed) - 1)
        return codes[self._listed[at] == numbers]

    def _members(self) -> Array | frozenset[bytes] | None:
        """Return the rows of a list as sorted numbers, or as bytes if one of its parameters is a range."""
        if self._table is None:
            return None
        return frozenset(row.tobytes() for row in self._table) if self._encoding.continuous else np.sort(self._numbers(self._table))

    def _numbers(self, codes: Array) -> Array:
        return np.asarray((codes + 1.0) @ self._radix)

    def any_left(self) -> Array | None:
        """Return a row that may be proposed, or None if none is found."""
        rounds = (self.random(self.size or _TRIES) for _ in range(1 if self.size else _ROUNDS))
        return next((row for rows in rounds for row in rows if self.admits(row)), None)
