"""Make proposals that are screened by a surrogate.

Every proposal is the best of a pool: offspring of the survivors (crossover and mutation), neighbours of the best measurements, and random
configurations, improved by a few steps of hill climbing. One slot of a generation is for a step from the elite: the most promising
configuration that differs from it in one parameter, so that the search is thorough around the best. `committee.py` scores candidates.
Pending proposals count as measured at their predicted value, so that a generation spreads out. In Pareto mode every screening except that
of the step uses its own direction between the objectives, so that the whole front is searched. The step uses the fitness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_gpu.search.committee import HOPELESS, Committee
from tune_gpu.search.encoding import Array, Encoding
from tune_gpu.search.observations import Observations
from tune_gpu.search.open_space import OpenSpace
from tune_gpu.search.pareto import along, matrix
from tune_gpu.search.space import Params, SearchSpace

_CLIMBS = 2
_LONG_RUN_ROWS = 64
_SEVERAL = 4
"""Number of proposals of a kind per screening, once there are more results than the surrogate learns from."""
_FEASIBILITY_ROWS = 200
_FEWEST = 2
"""Number of measurements that are enough for the surrogate if most configurations fail. Then its prediction of failures matters more than
that of the fitness."""


@dataclass(frozen=True)
class GuidedOptions:
    """Sizes of the screening. The defaults are those of the published comparison."""

    spread: int = 6
    """Outcomes before the surrogate is used, all of them measurements unless most fail. Until then proposals are far from each other, or
    drawn at random (with ranges, if most fail, or if all measure the same)."""
    spread_pool: int = 256
    """Number of random draws. An early proposal is the one furthest from all others."""
    random_pool: int = 800
    offspring_pool: int = 400
    leaders: int = 3
    """Number of the best configurations that a step may start from, each once all steps from the better ones are known."""
    fresh_share: float = 1 / 64
    """Random draws as a share of the space. The forced fresh candidate is the most promising of them."""
    fresh_pool: tuple[int, int] = (64, 1024)
    """Smallest and largest number of these draws."""
    training_rows: tuple[int, int] = (128, 220)
    """Maximum number of measurements that the surrogate learns from, in a space of values and with continuous parameters (which need more).
    If there are more, the best and the latest are used."""


class Guided:
    """The measurements in one space, and proposals from them.

    Args:
        space: the space of proposals.
        rng: makes every random choice.
        options: sizes of the screening.
        directions: in Pareto mode, `max` or `min` for each objective.
    """

    def __init__(
        self, space: SearchSpace, rng: np.random.Generator, options: GuidedOptions | None = None, directions: Mapping[str, str] | None = None,
    ) -> None:
        self._rng, self._options = rng, options or GuidedOptions()
        self.encoding = Encoding(space)
        self._training_rows = self._options.training_rows[self.encoding.continuous]
        self._observations, self._open = Observations(), OpenSpace(self.encoding, rng)
        least, most = self._options.fresh_pool
        self._fresh_pool = int(np.clip(self._options.fresh_share * self._open.size, least, most)) if self._open.size else most
        self._committee = Committee(self.encoding, rng)
        self._kept: dict[str, list[Array]] = {}
        """Kind of proposal -> further rows that the last screening found."""
        self._directions = dict(directions or {})
        self._objectives: dict[bytes, Array] = {}
        """In Pareto mode, sums over the evaluations of a configuration, with signs so that higher is better."""

    # What is known -----------------------------------------------------------------------------------------------------------------

    def mark_pending(self, params: Params) -> None:
        """Record a proposal. It is not made again, and until its result it counts as measured at its predicted value."""
        key = self._key(params)
        self._open.exclude(key)
        self._observations.mark_pending(key)

    def unmark(self, params: Params) -> None:
        """Undo the latest `mark_pending`, which was only needed while a generation was made. It will be recorded again."""
        self._observations.unmark(self._key(params))

    def awaits(self, params: Params) -> bool:
        """Return whether it was proposed and has no result yet."""
        return self._observations.awaits(self._key(params))

    def observe(
        self, params: Params, fitness: float | None, *, transient: bool = False, objectives: Mapping[str, float] | None = None,
    ) -> None:
        """Record a result of a proposal. Without a fitness the proposal did not run; if `transient`, that does not count against it."""
        key = self._key(params)
        if self._directions and fitness is not None:
            values = matrix([[(objectives or {})[name] for name in self._directions]], list(self._directions.values()))[0]
            self._objectives[key] = self._objectives.get(key, 0.0) + values
        if transient:
            if self._observations.observe_nothing(key):
                self._open.readmit(key)
        elif self._observations.observe(key, fitness):
            self._kept.clear()

    def progress(self) -> float:
        """Return how far the latest half of the configurations has raised the best measurement: see `Observations.progress`."""
        return self._observations.progress()

    def _key(self, params: Params) -> bytes:
        return self.encoding.encode(params).tobytes()

    def state(self) -> dict[str, Any]:
        """Return the state that cannot be computed from the measurements."""
        return {"committee": self._committee.state(), "forbidden": self._open.forbidden,
                "kept": {kind: [row.tolist() for row in rows] for kind, rows in self._kept.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state`, after the same measurements were replayed."""
        self._committee.load(state["committee"])
        for row in state["forbidden"]:
            self._open.forbid(np.array(row))
        self._kept = {kind: [np.array(row) for row in rows] for kind, rows in state["kept"].items()}

    # Proposals ---------------------------------------------------------------------------------------------------------------------

    def propose(
        self, survivors: list[Params], *, fresh: bool, step: bool = False, noise_free: bool = False, no_signal: bool = False,
    ) -> tuple[str, dict[str, Any]] | None:
        """Return the next candidate and its origin (`offspring` or `fresh`), or None if nothing is left.

        Args:
            survivors: the parents.
            fresh: whether it must be a random draw.
            step: whether it should differ from the best in one parameter.
            noise_free: measurements are known to have no noise.
            no_signal: nothing shows that they differ by more than noise.
        """
        no_signal = not self._directions and (self._observations.no_signal or (no_signal and self._enough))
        parents = np.array([self.encoding.encode(p) for p in survivors]) if survivors else np.empty((0, self.encoding.n))
        if no_signal or not self._enough:
            pool = self._open.random(self._options.spread_pool)
            row = next(iter(self._best(pool, self._early(pool, no_signal=no_signal), 1)), None)
        else:
            row = self._promising(["fresh"] if fresh else ["step", "offspring"] if step else ["offspring"], parents, noise_free)
        if row is None:
            return None
        return ("fresh" if fresh or not self._is_child(row, parents) else "offspring"), self.encoding.decode(row)

    @property
    def _enough(self) -> bool:
        """Return whether there are enough outcomes for the surrogate."""
        wanted, known = min(self._options.spread, 2 + self.encoding.n), self._observations
        return known.ran >= wanted or (known.ran >= _FEWEST and known.most_failed and known.ran + known.failed >= wanted)

    def _is_child(self, row: Array, parents: Array) -> bool:
        """Return whether crossover of the parents and at most two mutations can produce the row."""
        return bool(len(parents)) and int((~(parents == row).any(axis=0)).sum()) <= 2

    def _promising(self, kinds: list[str], parents: Array, noise_free: bool) -> Array | None:
        """Return the best row of a screening, for the first of these kinds that finds any. After many results one screening serves several
        proposals, as long as no result is news."""
        learnt = False
        for kind in kinds:
            kept = self._kept.get(kind, [])
            while kept:
                if self._open.maybe(row := kept.pop(0)):
                    return row
            if not learnt:
                self._learn(noise_free, of_fitness=kind == "step")
                learnt = True
            several = _SEVERAL if self._observations.ran > self._training_rows else 1
            best = self._fresh(several) if kind == "fresh" else self._step(several) if kind == "step" else self._screened(parents, several)
            if best:
                self._kept[kind] = best[1:]
                return best[0]
        return None

    def _learn(self, noise_free: bool, *, of_fitness: bool) -> None:
        self._learn_what_runs()
        codes, means, counts, total = self._observations.measurements(self._training_rows, _LONG_RUN_ROWS)
        if self._directions:
            self._committee.ask_anew()
        if self._directions and not of_fitness:
            values = np.array([self._objectives[row.tobytes()] for row in codes]) / counts[:, None]
            means = along(values, self._rng.dirichlet(np.ones(len(self._directions))))
        self._committee.learn(codes, means, counts, self._observations.waiting(), total, noise_free=noise_free)

    def _learn_what_runs(self) -> None:
        self._committee.learn_what_runs(*self._observations.outcomes(_FEASIBILITY_ROWS))

    def _fresh(self, count: int) -> list[Array]:
        pool = self._open.random(self._fresh_pool)
        return self._best(pool, self._committee.score(pool), count)

    def _step(self, count: int) -> list[Array]:
        """Return the most promising rows that differ from the best in one parameter. If all of those are known or will not run, start from
        the next best."""
        for leader in self._committee.leaders[: self._options.leaders]:
            near = self._open.listed(self.encoding.neighbours(leader[None, :], self._rng))
            near = near[np.array([self._open.maybe(row) for row in near], dtype=bool)]
            score = self._committee.score(near)
            if len(near) and score.max() > HOPELESS:
                return self._best(near, score, count)
        return []

    def _screened(self, parents: Array, count: int) -> list[Array]:
        pool = self._open.random(self._open.size) if self._open.scored_whole else self._pool(parents)
        score = self._committee.score(pool)
        for _ in range(0 if self._open.scored_whole else _CLIMBS):
            top = pool[np.argsort(-score, kind="stable")[:4]]
            near = self._open.listed(self.encoding.neighbours(top, self._rng))
            pool, score = np.concatenate([pool, near]), np.concatenate([score, self._committee.score(near)])
        return self._best(pool, score, count)

    def _pool(self, parents: Array) -> Array:
        o, best = self._options, self._committee.leaders
        draws = self._open.random(o.random_pool)
        children = self.encoding.offspring(np.concatenate([parents, best]), o.offspring_pool, self._rng)
        return np.concatenate([draws, self._open.listed(np.concatenate([children, self.encoding.neighbours(best, self._rng)]))])

    def _best(self, pool: Array, score: Array, count: int) -> list[Array]:
        """Return up to `count` of the best rows that may be proposed, best first. Return at least one if any row is open, but no second one
        that will not run."""
        found: dict[bytes, Array] = {}
        for i in np.argsort(-score, kind="stable"):
            if found and score[i] < HOPELESS:
                break
            if pool[i].tobytes() not in found and self._open.admits(pool[i]):
                found[pool[i].tobytes()] = pool[i]
            if len(found) == count:
                break
        if not found and (left := self._open.any_left()) is not None:
            return [left]
        return list(found.values())

    def _early(self, pool: Array, *, no_signal: bool) -> Array:
        """Return scores for early proposals.

        In a table, rows far from the known ones score high. With continuous parameters such rows are corners, which are seldom good, and
        where most constraints are violated. Therefore, if most configurations have failed, draw at random in proportion to the probability
        to run (Gumbel's trick). After two equal measurements draw at random, too, because corners of a plateau add no information.
        """
        if self._observations.most_failed:
            self._learn_what_runs()
            return self._committee.log_probability_to_run(pool) + self._rng.gumbel(size=len(pool))
        known = self._observations.proposed()
        if self.encoding.continuous or not len(known) or no_signal:
            return np.zeros(len(pool))
        x, z = self.encoding.features(pool), self.encoding.features(known)
        return np.asarray(((x[:, None, :] - z[None, :, :]) ** 2).sum(axis=2).min(axis=1))
