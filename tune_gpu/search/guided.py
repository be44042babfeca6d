"""Proposals that a surrogate has screened.

Every proposal is the best of a pool: offspring of the survivors (crossover and mutation), neighbours of what measured best, and random
configurations, climbed uphill a few steps. "Best" is expected improvement, the geometric mean of what a Gaussian process and a forest of
trees expect, times the learnt probability that the configuration runs at all. What awaits its result counts as measured at its predicted
value, so that a generation spreads out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.encoding import Array, Encoding
from tune_gpu.search.feasibility import Feasibility
from tune_gpu.search.forest import Forest
from tune_gpu.search.surrogate import GaussianProcess, log_expected_improvement, normal_scores
from tune_gpu.space import Params, SearchSpace

_ENUMERABLE = 20_000
_TRAINING_ROWS = 220
_LONG_RUN_ROWS = 64
_CLIMBS = 2
_UNLIKELY = 0.25
"""What runs with less than this probability is proposed only when nothing else is left."""
_ALWAYS_GROWN = 300
"""Evaluations up to which the forest is grown with every result; later with every 16th, and anew after a restore."""


@dataclass(frozen=True)
class GuidedOptions:
    """Sizes of the screening; the defaults are those of the published comparison."""

    spread: int = 6
    """Feasible measurements before the surrogate speaks; until then proposals lie far from each other."""
    spread_pool: int = 256
    """Random draws of which an early proposal is the one furthest from all others."""
    random_pool: int = 800
    offspring_pool: int = 400
    fresh_pool: int = 64
    """Random draws of which the forced fresh candidate is the most promising."""


class Guided:
    """What has been measured in one space, and what is promising there.

    Args:
        space: what may be proposed.
        rng: every random choice.
        options: sizes.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, options: GuidedOptions | None = None) -> None:
        self._space, self._rng, self._options = space, rng, options or GuidedOptions()
        self.encoding = Encoding(space)
        self._table = self.encoding.table(_ENUMERABLE)
        self._radix = np.concatenate([[1.0], np.cumprod(self.encoding.sizes[:-1] + 1.0)])
        self._listed = np.sort(self._numbers(self._table)) if space.listed is not None and self._table is not None else None
        self._index: dict[bytes, int] = {}
        self._codes: list[Array] = []
        self._sums: list[float] = []
        self._counts: list[int] = []
        self._failed: list[bool] = []
        self._taken: set[bytes] = set()
        self._pending: dict[bytes, int] = {}
        self._forbidden: set[bytes] = set()
        self._open: NDArray[np.int64] | None = np.arange(len(self._table)) if self._table is not None else None
        self._process = GaussianProcess(self.encoding.groups)
        self._forest = Forest()
        self._tuned_at = 0
        self._grown_at = 0

    # What is known -----------------------------------------------------------------------------------------------------------------

    def take(self, params: Params) -> None:
        """It has been proposed: not again, and until its result it counts as measured at its predicted value."""
        key = self.encoding.encode(params).tobytes()
        self._taken.add(key)
        self._pending[key] = self._pending.get(key, 0) + 1

    def untake(self, params: Params) -> None:
        """It is not being measured after all (but remains closed until `take` or a transient failure)."""
        key = self.encoding.encode(params).tobytes()
        if self._pending.get(key, 0) <= 1:
            self._pending.pop(key, None)
        else:
            self._pending[key] -= 1

    def state(self) -> dict[str, Any]:
        """What is not a consequence of the measurements."""
        return {"theta": self._process.theta.tolist(), "tuned_at": self._tuned_at}

    def load(self, state: dict[str, Any]) -> None:
        """`state` again, after the same measurements were told."""
        self._process.theta, self._tuned_at = np.array(state["theta"]), int(state["tuned_at"])

    def tell(self, params: Params, fitness: float | None, *, transient: bool = False) -> None:
        """A result. Null fitness: it did not run; `transient`: and that says nothing about it."""
        code = self.encoding.encode(params)
        key = code.tobytes()
        if self._pending.get(key, 0) <= 1:
            self._pending.pop(key, None)
        else:
            self._pending[key] -= 1
        if transient:
            if key not in self._index and key not in self._pending:
                self._taken.discard(key)
            return
        at = self._index.setdefault(key, len(self._codes))
        if at == len(self._codes):
            self._codes.append(code)
            self._sums.append(0.0)
            self._counts.append(0)
            self._failed.append(False)
        if fitness is None:
            self._failed[at] = self._counts[at] == 0
        else:
            self._sums[at] += fitness
            self._counts[at] += 1
            self._failed[at] = False

    # Proposals ---------------------------------------------------------------------------------------------------------------------

    def propose(self, survivors: list[Params], *, fresh: bool) -> tuple[str, dict[str, Any]] | None:
        """The next candidate and its origin (`offspring` or `fresh`); null if nothing is left.

        Args:
            survivors: the parents.
            fresh: it must be a random draw.
        """
        ran = [i for i, count in enumerate(self._counts) if count]
        parents = np.array([self.encoding.encode(p) for p in survivors]) if survivors else np.empty((0, self.encoding.n))
        if len(ran) < min(self._options.spread, 2 + self.encoding.n):
            pool = self._random(self._options.spread_pool)
            row = self._first(pool, self._distance(pool)) if len(pool) else None
        else:
            self._learn(np.array(ran))
            if fresh:
                pool = self._random(self._options.fresh_pool)
                row = self._first(pool, self._score(pool)) if len(pool) else None
            else:
                row = self._screened(parents)
        if row is None:
            return None
        return ("fresh" if fresh or not self._is_child(row, parents) else "offspring"), self.encoding.decode(row)

    def _is_child(self, row: Array, parents: Array) -> bool:
        """Whether crossover of the parents and at most two mutations make it."""
        return bool(len(parents)) and int((~(parents == row).any(axis=0)).sum()) <= 2

    def _screened(self, parents: Array) -> Array | None:
        pool = self._pool(parents)
        if not len(pool):
            return None
        score = self._score(pool)
        if self._open is None or len(pool) < len(self._open):
            for _ in range(_CLIMBS):
                top = pool[np.argsort(-score, kind="stable")[:4]]
                near = self._possible(np.concatenate([self.encoding.neighbours(row, self._rng) for row in top]))
                pool, score = np.concatenate([pool, near]), np.concatenate([score, self._score(near)])
        return self._first(pool, score)

    def _pool(self, parents: Array) -> Array:
        if self._open is not None and self._table is not None and len(self._open) <= 3000:
            return self._random(len(self._open))
        o = self._options
        best = self._x_codes[np.argsort(-self._y, kind="stable")[:5]]
        parts = [self._random(o.random_pool), self.encoding.offspring(np.concatenate([parents, best]), o.offspring_pool, self._rng)]
        parts += [self.encoding.neighbours(row, self._rng) for row in best]
        return np.concatenate([parts[0], self._possible(np.concatenate(parts[1:]))])

    def _random(self, count: int) -> Array:
        """Random configurations that are open, as far as is known."""
        if self._open is None or self._table is None:
            return self.encoding.random(count, self._rng)
        return self._table[self._rng.permutation(self._open)[:count]]

    def _possible(self, codes: Array) -> Array:
        if self._listed is None:
            return codes
        numbers = self._numbers(codes)
        at = np.searchsorted(self._listed, numbers).clip(max=len(self._listed) - 1)
        return codes[self._listed[at] == numbers]

    def _numbers(self, codes: Array) -> Array:
        return np.asarray((codes + 1.0) @ self._radix)

    def _first(self, pool: Array, score: Array) -> Array | None:
        """The best row that may be proposed."""
        for i in np.argsort(-score, kind="stable"):
            row = pool[i]
            key = row.tobytes()
            if key in self._taken or key in self._forbidden:
                continue
            if self._space.allows(self.encoding.decode(row)):
                self._close(row)
                return row
            self._forbidden.add(key)
            self._close(row)
        return self._any_left()

    def _any_left(self) -> Array | None:
        """When the whole pool was known or forbidden: whatever is open."""
        candidates = self._table[self._rng.permutation(self._open)] if self._open is not None and self._table is not None else \
            self.encoding.random(2000, self._rng)
        for row in candidates:
            if row.tobytes() not in self._taken and self._space.allows(self.encoding.decode(row)):
                return np.asarray(row)
        return None

    def _close(self, row: Array) -> None:
        if self._open is not None and self._table is not None and len(self._open) <= 3000:
            self._open = self._open[(self._table[self._open] != row).any(axis=1)]

    # The surrogate -----------------------------------------------------------------------------------------------------------------

    def _learn(self, ran: NDArray[np.int64]) -> None:
        counts = np.array(self._counts)[ran]
        means = np.array(self._sums)[ran] / counts
        if len(ran) > _TRAINING_ROWS:  # the best and the latest
            best = np.argsort(-means, kind="stable")[:_LONG_RUN_ROWS]
            kept = np.unique(np.concatenate([best, np.arange(len(ran) - _LONG_RUN_ROWS, len(ran))]))
            ran, counts, means = ran[kept], counts[kept], means[kept]
        codes = np.array([self._codes[i] for i in ran])
        x, y = self.encoding.features(codes), normal_scores(means)
        total = sum(self._counts)
        if total - self._tuned_at >= max(1, min(total // 12, 32)):
            self._process.tune(x, y, counts, self._rng)
            self._tuned_at = total
        self._process.condition(x, y, counts)
        self._x_codes, self._y = codes, y
        if not self._grown_at or total - self._grown_at >= (1 if total <= _ALWAYS_GROWN else 16):
            self._forest.fit(codes, y, counts, seed=total)
            self._grown_at, self._forest_best = total, float(y.max())
        if self._pending:
            waiting = self.encoding.features(np.array([np.frombuffer(key) for key in self._pending]))
            believed = self._process.predict(waiting)[0]
            x, y = np.concatenate([x, waiting]), np.concatenate([y, believed])
            counts = np.concatenate([counts, np.ones(len(waiting))])
            self._process.condition(x, y, counts)
        self._best = float(self._process.predict(x)[0].max())
        recent = list(range(len(self._codes)))[-400:]
        self._feasibility = Feasibility()
        self._feasibility.learn(self.encoding.features(np.array([self._codes[i] for i in recent])), ~np.array([self._failed[i] for i in recent]))

    def _score(self, codes: Array) -> Array:
        if not len(codes):
            return np.empty(0)
        x = self.encoding.features(codes)
        by_process = log_expected_improvement(*self._process.predict(x), self._best)
        by_forest = log_expected_improvement(*self._forest.predict(codes), self._forest_best)
        runs = self._feasibility.log_probability(x)
        # The logarithm of a hopeless improvement spreads over tens: no probability that is not near 0 would weigh against it.
        return 0.5 * (by_process + by_forest) + runs - np.where(runs < math.log(_UNLIKELY), 1e3, 0.0)

    def _distance(self, pool: Array) -> Array:
        known = [*self._codes, *(np.frombuffer(key) for key in self._pending)]
        if not known:
            return np.zeros(len(pool))
        x, z = self.encoding.features(pool), self.encoding.features(np.array(known))
        return np.asarray(((x[:, None, :] - z[None, :, :]) ** 2).sum(axis=2).min(axis=1))
