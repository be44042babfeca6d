"""Proposals that a surrogate has screened.

Every proposal is the best of a pool: offspring of the survivors (crossover and mutation), neighbours of what measured best, and random
configurations, climbed uphill a few steps. One place of a generation is for a step from the elite: the most promising configuration that
differs from it in one parameter, so that the end of the search is thorough where it matters. What is promising, `committee.py` says. What
awaits its result counts as measured at its predicted value, so that a generation spreads out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.committee import HOPELESS, Committee
from tune_gpu.search.encoding import Array, Encoding
from tune_gpu.space import Params, SearchSpace

_ENUMERABLE = 20_000
_SCORED_WHOLE = 3000
_CLIMBS = 2
_LONG_RUN_ROWS = 64
_SEVERAL = 4
"""How many proposals of a kind one screening makes, once there are more results than are learnt from."""
_FEASIBILITY_ROWS = 200


@dataclass(frozen=True)
class GuidedOptions:
    """Sizes of the screening; the defaults are those of the published comparison."""

    spread: int = 6
    """Feasible measurements before the surrogate speaks; until then proposals lie far from each other (ranges: are drawn at random)."""
    spread_pool: int = 256
    """Random draws of which an early proposal is the one furthest from all others."""
    random_pool: int = 800
    offspring_pool: int = 400
    leaders: int = 3
    """How many of the best a step may start from, once all steps from those before are known."""
    fresh_share: float = 1 / 64
    """Random draws, as a share of the space, of which the forced fresh candidate is the most promising …"""
    fresh_pool: tuple[int, int] = (64, 1024)
    """… and no fewer and no more than these."""
    training_rows: tuple[int, int] = (128, 220)
    """Measurements that the surrogate learns from, of more the best and the latest: in a space of values, and where parameters are continuous
    (there fewer find less)."""


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
        self._training_rows = self._options.training_rows[self.encoding.continuous]
        self._table = self.encoding.table(_ENUMERABLE)
        least, most = self._options.fresh_pool
        self._fresh_pool = most if self._table is None else int(np.clip(self._options.fresh_share * len(self._table), least, most))
        self._radix = np.concatenate([[1.0], np.cumprod(self.encoding.sizes[:-1] + 1.0)])
        self._listed = np.sort(self._numbers(self._table)) if space.listed is not None and self._table is not None else None
        self._index: dict[bytes, int] = {}  # in the order of `take`: the order in which results come must not count
        self._codes: list[Array] = []
        self._sums: list[float] = []
        self._counts: list[int] = []
        self._failed: list[bool] = []
        self._ran = 0
        """How many of them have a measurement."""
        self._taken: set[bytes] = set()
        self._pending: dict[bytes, int] = {}
        self._forbidden: set[bytes] = set()
        self._whole = self._table is not None and len(self._table) <= _SCORED_WHOLE
        self._open: NDArray[np.int64] | None = np.arange(len(self._table)) if self._table is not None else None
        """Rows of the table that may be drawn; where it is scored whole, without those that are taken or forbidden."""
        self._committee = Committee(self.encoding, rng)
        self._kept: dict[str, list[Array]] = {}
        """By kind of proposal, what a screening found beside its first."""
        self._record = -math.inf

    # What is known -----------------------------------------------------------------------------------------------------------------

    def take(self, params: Params) -> None:
        """It has been proposed: not again, and until its result it counts as measured at its predicted value."""
        key = self.encoding.encode(params).tobytes()
        self._taken.add(key)
        self._close(key)
        if self._index.setdefault(key, len(self._codes)) == len(self._codes):
            self._codes.append(np.frombuffer(key))
            self._sums.append(0.0)
            self._counts.append(0)
            self._failed.append(False)
        self._pending[key] = self._pending.get(key, 0) + 1

    def untake(self, params: Params) -> None:
        """The latest `take` that is left was only to make the others of its generation: it will be taken anew."""
        key = self.encoding.encode(params).tobytes()
        self._no_longer_pending(key)
        if key not in self._pending and self._index[key] == len(self._codes) - 1 and not self._counts[-1] and not self._failed[-1]:
            del self._index[key]
            for known in (self._codes, self._sums, self._counts, self._failed):
                known.pop()

    def _no_longer_pending(self, key: bytes) -> None:
        self._pending[key] = self._pending.get(key, 0) - 1
        if self._pending[key] <= 0:
            del self._pending[key]

    def awaits(self, params: Params) -> bool:
        """Whether it was taken and has no result yet."""
        return self.encoding.encode(params).tobytes() in self._pending

    def state(self) -> dict[str, Any]:
        """What is not a consequence of the measurements."""
        return {"committee": self._committee.state(), "forbidden": sorted(np.frombuffer(key).tolist() for key in self._forbidden),
                "kept": {kind: [row.tolist() for row in rows] for kind, rows in self._kept.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """`state` again, after the same measurements were told."""
        self._committee.load(state["committee"])
        for row in state["forbidden"]:
            self._forbid(np.array(row).tobytes())
        self._kept = {kind: [np.array(row) for row in rows] for kind, rows in state["kept"].items()}

    def tell(self, params: Params, fitness: float | None, *, transient: bool = False) -> None:
        """A result of one that was taken. Null fitness: it did not run; `transient`: and that says nothing about it."""
        key = self.encoding.encode(params).tobytes()
        at = self._index[key]
        self._no_longer_pending(key)
        known = bool(self._counts[at]) or self._failed[at]
        if transient:
            if not known and key not in self._pending:
                self._taken.discard(key)
                self._reopen(key)
            return
        if fitness is None or self._counts[at] or fitness > self._record:
            self._kept.clear()
        if fitness is None:
            self._failed[at] = not self._counts[at]
        else:
            self._record = max(self._record, fitness)
            self._ran += not self._counts[at]
            self._sums[at] += fitness
            self._counts[at] += 1
            self._failed[at] = False

    # Proposals ---------------------------------------------------------------------------------------------------------------------

    def propose(self, survivors: list[Params], *, fresh: bool, step: bool = False) -> tuple[str, dict[str, Any]] | None:
        """The next candidate and its origin (`offspring` or `fresh`); null if nothing is left.

        Args:
            survivors: the parents.
            fresh: it must be a random draw.
            step: it should differ from the best in one parameter.
        """
        parents = np.array([self.encoding.encode(p) for p in survivors]) if survivors else np.empty((0, self.encoding.n))
        if self._ran < min(self._options.spread, 2 + self.encoding.n):
            pool = self._random(self._options.spread_pool)
            row = next(iter(self._best(pool, self._early(pool), 1)), None)
        else:
            row = self._promising("fresh", parents) if fresh else self._promising("step", parents) if step else None
            row = self._promising("offspring", parents) if row is None and not fresh else row
        if row is None:
            return None
        return ("fresh" if fresh or not self._is_child(row, parents) else "offspring"), self.encoding.decode(row)

    def _is_child(self, row: Array, parents: Array) -> bool:
        """Whether crossover of the parents and at most two mutations make it."""
        return bool(len(parents)) and int((~(parents == row).any(axis=0)).sum()) <= 2

    def _promising(self, kind: str, parents: Array) -> Array | None:
        """The best of a screening. After many results one screening serves for several, as long as no result is news."""
        kept = self._kept.setdefault(kind, [])
        while kept:
            if (row := kept.pop(0)).tobytes() not in self._taken:
                return row
        self._learn()
        several = _SEVERAL if self._ran > self._training_rows else 1
        best = self._fresh(several) if kind == "fresh" else self._step(several) if kind == "step" else self._screened(parents, several)
        self._kept[kind] = best[1:]
        return best[0] if best else None

    def _fresh(self, count: int) -> list[Array]:
        pool = self._random(self._fresh_pool)
        return self._best(pool, self._committee.score(pool), count)

    def _screened(self, parents: Array, count: int) -> list[Array]:
        pool = self._pool(parents)
        score = self._committee.score(pool)
        if self._open is None or len(pool) < len(self._open):
            for _ in range(_CLIMBS):
                top = pool[np.argsort(-score, kind="stable")[:4]]
                near = self._possible(self.encoding.neighbours(top, self._rng))
                pool, score = np.concatenate([pool, near]), np.concatenate([score, self._committee.score(near)])
        return self._best(pool, score, count)

    def _learn(self) -> None:
        known = [i for i, count in enumerate(self._counts) if count or self._failed[i]][-_FEASIBILITY_ROWS:]
        self._committee.learn_what_runs(np.array([self._codes[i] for i in known]), ~np.array([self._failed[i] for i in known]))
        counts = np.array(self._counts, dtype=float)
        total, rows = int(counts.sum()), np.flatnonzero(counts)
        counts = counts[rows]
        means = np.array(self._sums)[rows] / counts
        if len(rows) > self._training_rows:  # the best and the latest
            best = np.argsort(-means, kind="stable")[:_LONG_RUN_ROWS]
            kept = np.unique(np.concatenate([best, np.arange(len(rows) - _LONG_RUN_ROWS, len(rows))]))
            rows, counts, means = rows[kept], counts[kept], means[kept]
        waiting = np.array([np.frombuffer(key) for key in self._pending])
        self._committee.learn(np.array([self._codes[i] for i in rows]), means, counts, waiting, total)

    def _step(self, count: int) -> list[Array]:
        """The most promising that differs from the best in one parameter; when all of those are known, or will not run, from the next best."""
        for leader in self._committee.leaders[: self._options.leaders]:
            near = self._possible(self.encoding.neighbours(leader[None, :], self._rng))
            near = near[np.array([row.tobytes() not in self._taken and row.tobytes() not in self._forbidden for row in near], dtype=bool)]
            score = self._committee.score(near)
            if len(near) and score.max() > HOPELESS:
                return self._best(near, score, count)
        return []

    def _pool(self, parents: Array) -> Array:
        if self._whole and self._open is not None:
            return self._random(len(self._open))
        o = self._options
        best = self._committee.leaders
        parts = [self._random(o.random_pool), self.encoding.offspring(np.concatenate([parents, best]), o.offspring_pool, self._rng),
                 self.encoding.neighbours(best, self._rng)]
        return np.concatenate([parts[0], self._possible(np.concatenate(parts[1:]))])

    def _random(self, count: int) -> Array:
        """Random configurations that are open, as far as is known."""
        if self._open is None or self._table is None:
            return self.encoding.random(count, self._rng)
        if count >= len(self._open):
            return self._table[self._rng.permutation(self._open)]
        return self._table[self._open[self._rng.choice(len(self._open), size=count, replace=False)]]

    def _possible(self, codes: Array) -> Array:
        if self._listed is None:
            return codes
        numbers = self._numbers(codes)
        at = np.searchsorted(self._listed, numbers).clip(max=len(self._listed) - 1)
        return codes[self._listed[at] == numbers]

    def _numbers(self, codes: Array) -> Array:
        return np.asarray((codes + 1.0) @ self._radix)

    def _best(self, pool: Array, score: Array, count: int) -> list[Array]:
        """So many of the best rows that may be proposed, best first; one at least, if anything is open, but no second that will not run."""
        found: dict[bytes, Array] = {}
        for i in np.argsort(-score, kind="stable"):
            row = pool[i]
            key = row.tobytes()
            if key in self._taken or key in self._forbidden or key in found:
                continue
            if found and score[i] < HOPELESS:
                break
            if not self._space.allows(self.encoding.decode(row)):
                self._forbid(key)
                continue
            found[key] = row
            if len(found) == count:
                break
        return list(found.values()) or self._any_left()

    def _any_left(self) -> list[Array]:
        """When the whole pool was known or forbidden: one that is open, if any is."""
        candidates = self._table[self._rng.permutation(self._open)] if self._open is not None and self._table is not None else \
            self.encoding.random(2000, self._rng)
        for row in candidates:
            if row.tobytes() not in self._taken and self._space.allows(self.encoding.decode(row)):
                return [row]
        return []

    def _forbid(self, key: bytes) -> None:
        self._forbidden.add(key)
        self._close(key)

    def _close(self, key: bytes) -> None:
        if self._whole and self._open is not None and self._table is not None:
            self._open = self._open[(self._table[self._open] != np.frombuffer(key)).any(axis=1)]

    def _reopen(self, key: bytes) -> None:
        if self._whole and self._open is not None and self._table is not None:
            self._open = np.union1d(self._open, np.flatnonzero((self._table == np.frombuffer(key)).all(axis=1)))

    def _early(self, pool: Array) -> Array:
        """Far from what is known is good in a table; where parameters are continuous it is a corner, and those are seldom good."""
        return np.zeros(len(pool)) if self.encoding.continuous else self._distance(pool)

    def _distance(self, pool: Array) -> Array:
        known = [*self._codes, *(np.frombuffer(key) for key in self._pending)]
        if not known:
            return np.zeros(len(pool))
        x, z = self.encoding.features(pool), self.encoding.features(np.array(known))
        return np.asarray(((x[:, None, :] - z[None, :, :]) ** 2).sum(axis=2).min(axis=1))
