"""The proposals in one space and their measurements. A row of codes is identified by its bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.encoding import Array


class Observations:
    """Proposals (`mark_pending`) and their results (`observe`), in the order of the proposals, so that the order in which results arrive
    does not matter."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._codes: list[Array] = []
        self._sums: list[float] = []
        self._highest: list[float] = []
        self._counts: list[int] = []
        self._failed: list[bool] = []
        self._pending: dict[bytes, int] = {}
        self._record = -math.inf
        self.ran = 0
        """Number of configurations that have a measurement."""

    def mark_pending(self, key: bytes) -> None:
        """Record that the row was proposed."""
        if self._index.setdefault(key, len(self._codes)) == len(self._codes):
            self._codes.append(np.frombuffer(key))
            self._sums.append(0.0)
            self._highest.append(-math.inf)
            self._counts.append(0)
            self._failed.append(False)
        self._pending[key] = self._pending.get(key, 0) + 1

    def unmark(self, key: bytes) -> None:
        """Undo the latest `mark_pending`."""
        self._no_longer_pending(key)
        if key not in self._pending and self._index[key] == len(self._codes) - 1 and not self._counts[-1] and not self._failed[-1]:
            del self._index[key]
            for known in (self._codes, self._sums, self._highest, self._counts, self._failed):
                known.pop()

    def observe(self, key: bytes, fitness: float | None) -> bool:
        """Add the result of a proposal, or None if it did not run. Return whether it is news: a new best, a repetition or a failure."""
        at = self._index[key]
        self._no_longer_pending(key)
        news = fitness is None or bool(self._counts[at]) or fitness > self._record
        if fitness is None:
            self._failed[at] = not self._counts[at]
        else:
            self._record = max(self._record, fitness)
            self.ran += not self._counts[at]
            self._sums[at] += fitness
            self._highest[at] = max(self._highest[at], fitness)
            self._counts[at] += 1
            self._failed[at] = False
        return news

    def observe_nothing(self, key: bytes) -> bool:
        """Record a result that does not depend on its configuration. Return whether the configuration has no other result and awaits
        none."""
        at = self._index[key]
        self._no_longer_pending(key)
        return not self._counts[at] and not self._failed[at] and key not in self._pending

    def _no_longer_pending(self, key: bytes) -> None:
        self._pending[key] = self._pending.get(key, 0) - 1
        if self._pending[key] <= 0:
            del self._pending[key]

    def awaits(self, key: bytes) -> bool:
        """Return whether the row was proposed and has no result yet."""
        return key in self._pending

    def proposed(self) -> Array:
        """Return all proposed rows."""
        return np.array(self._codes)

    @property
    def failed(self) -> int:
        """Return the number of configurations that did not run."""
        return sum(self._failed)

    @property
    def most_failed(self) -> bool:
        """Return whether more failed than ran."""
        return self.failed > self.ran

    @property
    def no_signal(self) -> bool:
        """Return whether two or more ran, and all measured the same."""
        ran = (value for value in self._highest if value > -math.inf)
        first = next(ran, None)
        return self.ran > 1 and all(value == first for value in ran)

    def waiting(self) -> Array:
        """Return all rows that await a result."""
        return np.array([np.frombuffer(key) for key in self._pending])

    def outcomes(self, latest: int) -> tuple[Array, NDArray[np.bool_]]:
        """Return the latest rows that have an outcome, and whether each of them ran."""
        rows = [i for i, count in enumerate(self._counts) if count or self._failed[i]][-latest:]
        return np.array([self._codes[i] for i in rows]), ~np.array([self._failed[i] for i in rows])

    def progress(self) -> float:
        """Return by how much the highest single measurement of the latest half of the configurations exceeds the earlier ones. It is
        infinite while there are too few. Means are not used: the means of the best fall when they are repeated, so that new ones would seem
        to exceed them."""
        ran = np.array([value for value in self._highest if value > -math.inf])
        latest = len(ran) // 2
        return float(ran[-latest:].max() - ran[:-latest].max()) if latest else math.inf

    def measurements(self, most: int, each: int) -> tuple[Array, Array, Array, int]:
        """Return the rows that ran, their mean fitness, their numbers of evaluations, and the total number of evaluations. If there are
        more than `most` rows, return `each` of the best and of the latest."""
        counts = np.array(self._counts, dtype=float)
        total, rows = int(counts.sum()), np.flatnonzero(counts)
        counts = counts[rows]
        means = np.array(self._sums)[rows] / counts
        if len(rows) > most:
            best = np.argsort(-means, kind="stable")[:each]
            kept = np.unique(np.concatenate([best, np.arange(len(rows) - each, len(rows))]))
            rows, counts, means = rows[kept], counts[kept], means[kept]
        return np.array([self._codes[i] for i in rows]), means, counts, total
