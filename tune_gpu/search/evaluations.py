"""Results of evaluations, and the standing of each configuration."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from tune_gpu.search.collected import Collected
from tune_gpu.search.space import Params, SearchSpace


@dataclass(frozen=True)
class Candidate:
    """One configuration, proposed for one evaluation."""

    candidate_id: str
    generation: int
    origin: str
    """initial, elite, offspring, fresh or baseline."""
    params: dict[str, Any]
    asked_after: int = 0
    """How many results the search had when it proposed this. With it a run can be replayed, whatever ran in parallel."""


@dataclass(frozen=True)
class Result:
    """The outcome of an evaluation, as the search reads it.

    Raises:
        ValueError: `ok` without a finite fitness, a failure with one, or an invalid standard error.
    """

    status: str
    """ok, infeasible or failed."""
    fitness: float | None = None
    """Higher is better."""
    stderr: float | None = None
    """Standard error of the fitness over the windows."""
    n_windows: int = 0
    violation: float = 0.0
    """By how much an infeasible or failed candidate misses the constraints. It ranks such candidates among themselves."""
    transient: bool = False
    """The failure does not depend on the candidate, which may be proposed again."""
    objectives: dict[str, float] = field(default_factory=dict)
    """In Pareto mode, the value of each objective, in its own direction."""

    def __post_init__(self) -> None:
        if self.status not in ("ok", "infeasible", "failed"):
            raise ValueError(f"status {self.status!r}: not allowed. Use one of ok, infeasible, failed.")
        if self.status == "ok" and (self.fitness is None or not math.isfinite(self.fitness)):
            raise ValueError(f"a result that is ok needs a finite fitness, not {self.fitness}")
        if self.status != "ok" and self.fitness is not None:
            raise ValueError(f"a result that is {self.status} has no fitness")
        if self.stderr is not None and not (self.stderr >= 0.0 and math.isfinite(self.stderr * self.stderr)):
            raise ValueError(f"stderr={self.stderr}: out of range. Use a number of at least 0 whose square is finite, or None.")
        for name, value in self.objectives.items():
            if not math.isfinite(value):
                raise ValueError(f"objective {name}={value}: not a finite number. Use a finite number, or another status than ok.")


@dataclass(frozen=True)
class Standing:
    """The combined results of one configuration."""

    params: dict[str, Any]
    fitness: float | None
    """Mean over its evaluations, weighted by the evidence of the search; None if none was ok."""
    violation: float
    n_evaluations: int
    n_windows: int
    objectives: dict[str, float] = field(default_factory=dict)
    """In Pareto mode, means over its evaluations, weighted by their windows."""
    stderr: float | None = None
    """Standard error of the fitness, including differences between deployments; None if it is unknown."""

    @property
    def rank(self) -> tuple[bool, float]:
        """Return a key that sorts the best first: feasible configurations by fitness, then the others by their violation."""
        return (self.fitness is None, self.violation if self.fitness is None else -self.fitness)


@dataclass
class _Tally:
    """Sums over the evaluations of one configuration."""

    params: dict[str, Any]
    weighted: float = 0.0
    windows: int = 0
    evaluations: int = 0
    violation: float = math.inf
    objectives: dict[str, float] = field(default_factory=dict)

    def standing(self) -> Standing:
        fitness = self.weighted / self.windows if self.windows else None
        objectives = {name: total / self.windows for name, total in self.objectives.items()} if self.windows else {}
        return Standing(self.params, fitness, self.violation, self.evaluations, self.windows, objectives)


class Ledger:
    """Standings of all configurations, updated as results arrive. Without noise nothing is summed again, because runs may be long."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._collected = Collected()
        self._tallies: dict[Hashable, _Tally] = {}
        self._claims: dict[Hashable, int] = {}

    def mark_pending(self, params: Params) -> None:
        """Record that the configuration was proposed."""
        key = self._space.key(params)
        self._claims[key] = self._claims.get(key, 0) + 1

    def observe(self, params: Params, result: Result) -> None:
        """Add a result. After a transient failure the configuration may be proposed again."""
        key = self._space.key(params)
        if result.transient:
            self._claims[key] -= 1
            if not self._claims[key]:
                del self._claims[key]
            return
        tally = self._tallies.setdefault(key, _Tally(dict(params)))
        tally.evaluations += 1
        tally.violation = min(tally.violation, result.violation)
        if result.fitness is not None:
            self._collected.observe(key, result.fitness, result.stderr, result.n_windows)
            tally.windows += max(1, result.n_windows)
            tally.weighted += result.fitness * max(1, result.n_windows)
            for name, value in result.objectives.items():
                tally.objectives[name] = tally.objectives.get(name, 0.0) + value * max(1, result.n_windows)

    def proposed(self) -> set[Hashable]:
        """Return the keys of the proposed configurations that have a result or await one."""
        return set(self._claims)

    def standing(self, params: Params) -> Standing:
        """Return the standing of one configuration. Raise KeyError if it has no result."""
        key = self._space.key(params)
        return self._standing(key, self._tallies[key])

    def standings(self) -> list[Standing]:
        """Return the standings of all configurations, best first."""
        return sorted((self._standing(*item) for item in self._tallies.items()), key=lambda standing: standing.rank)

    def best(self) -> Standing | None:
        """Return the first of `standings`, or None before any result."""
        return min((self._standing(*item) for item in self._tallies.items()), key=lambda standing: standing.rank, default=None)

    def _standing(self, key: Hashable, tally: _Tally) -> Standing:
        found = tally.standing()
        if found.fitness is None:
            return found
        if not self._collected.noisy:
            return replace(found, stderr=0.0 if self._collected.known else None)
        known = self._collected.evidence.estimate(key)
        return replace(found, fitness=known.mean, stderr=known.stderr)
