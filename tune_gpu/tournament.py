"""R-Zero, pure: populations in, populations out.

A generation competes in a tournament; its best survive and have offspring (crossover, then a step of one parameter). The next generation
is the elite (the best of all so far, measured again, so that it stays the best only if it is), the offspring, and fresh random
candidates, so that no corner is forgotten. Nothing is proposed twice but the elite. `ask` and `tell` in any order of results; a seed
decides everything else. Knows neither Ray nor GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tune_gpu.config import SearchSettings
from tune_gpu.errors import UserError
from tune_gpu.space import Params, SearchSpace

STATE_VERSION = 1
_TRIES = 200
_ENUMERABLE = 100_000


@dataclass(frozen=True)
class Candidate:
    """One configuration, proposed for one evaluation."""

    candidate_id: str
    generation: int
    origin: str
    """initial, elite, offspring, fresh or baseline."""
    params: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What an evaluation says to the search.

    Raises:
        ValueError: `ok` without a finite fitness, or a failure with one.
    """

    status: str
    """ok, infeasible or failed."""
    fitness: float | None = None
    """Higher is better."""
    stderr: float | None = None
    """Standard error of the fitness over the windows."""
    n_windows: int = 0
    violation: float = 0.0
    """By how much an infeasible or failed candidate misses: ranks them among themselves."""
    transient: bool = False
    """The failure says nothing about the candidate: it may be proposed again."""

    def __post_init__(self) -> None:
        if self.status not in ("ok", "infeasible", "failed"):
            raise ValueError(f"status {self.status!r}: allowed are ok, infeasible, failed")
        if self.status == "ok" and (self.fitness is None or not math.isfinite(self.fitness)):
            raise ValueError(f"a result that is ok needs a finite fitness, not {self.fitness}")
        if self.status != "ok" and self.fitness is not None:
            raise ValueError(f"a result that is {self.status} has no fitness")


@dataclass(frozen=True)
class Standing:
    """All that is known of one configuration."""

    params: dict[str, Any]
    fitness: float | None
    """Mean over its evaluations, weighted by their windows; null if none was ok."""
    violation: float
    n_evaluations: int
    n_windows: int

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts the best first: feasible before the rest, which are sorted by how far they miss."""
        return (self.fitness is None, self.violation if self.fitness is None else -self.fitness)


def check(settings: SearchSettings) -> None:
    """Raises UserError for settings that make no tournament."""
    rules = [
        (settings.algorithm == "classic", f"search.algorithm={settings.algorithm}: allowed: classic"),
        (settings.tournament_size >= 2, f"search.tournament_size={settings.tournament_size}: allowed is 2 or more"),
        (settings.initial >= 1, f"search.initial={settings.initial}: allowed is 1 or more"),
        (settings.generations >= 1, f"search.generations={settings.generations}: allowed is 1 or more"),
        (settings.fresh >= 1, f"search.fresh={settings.fresh}: allowed is 1 or more"),
        (settings.elites in (0, 1), f"search.elites={settings.elites}: allowed are 0 and 1"),
        (1 <= settings.survivors <= settings.tournament_size,
         f"search.survivors={settings.survivors}: allowed is 1 to search.tournament_size={settings.tournament_size}"),
        (settings.elites + settings.fresh < settings.tournament_size,
         f"search.elites + search.fresh = {settings.elites + settings.fresh}: allowed is less than "
         f"search.tournament_size={settings.tournament_size}, so that there are offspring"),
    ]
    for holds, message in rules:
        if not holds:
            raise UserError(message)


class Tournament:
    """The search as ask/tell.

    Args:
        space: what may be proposed.
        settings: sizes and seed; the defaults are the classic 2 + 4 + 4 + 4.
        baseline: what runs today; the first of the first generation.
        order_key: within a generation, candidates with equal keys stand together (those that share an engine, say).
    """

    def __init__(
        self, space: SearchSpace, settings: SearchSettings, *, baseline: Params | None = None,
        order_key: Callable[[Params], Hashable] | None = None,
    ) -> None:
        check(settings)
        if baseline is not None:
            try:
                space.check(baseline)
            except UserError as error:
                raise UserError(f"baseline.{error}") from error
        self._space, self._settings = space, settings
        self._baseline = dict(baseline) if baseline is not None else None
        self._order_key = order_key or (lambda _params: 0)
        self._rng = np.random.default_rng(settings.seed)
        self._results: dict[str, Result] = {}
        self._candidates: dict[str, Candidate] = {}
        self._generations: list[list[str]] = []
        self._queue: list[str] = []
        self._survivors: list[list[str]] = []
        self.ended_because: str | None = None
        """Why no more is proposed: `generations` or `space exhausted`; null while it goes on."""

    @property
    def generation(self) -> int:
        """The number of the generation that competes now, from 0."""
        return max(0, len(self._generations) - 1)

    @property
    def total_evaluations(self) -> int:
        """How many are planned (fewer if the space is smaller)."""
        return self._settings.initial + (self._settings.generations - 1) * self._settings.tournament_size

    @property
    def finished(self) -> bool:
        """Nothing will be proposed any more, and every result is in."""
        return self.ended_because is not None and not self._waiting()

    @property
    def history(self) -> list[tuple[Candidate, Result]]:
        """Every result so far, in the order of the results."""
        return [(self._candidates[candidate_id], result) for candidate_id, result in self._results.items()]

    @property
    def survivors(self) -> list[list[str]]:
        """Per ended generation, the candidates that survived it, best first."""
        return [list(ids) for ids in self._survivors]

    def ask(self) -> Candidate | None:
        """The next candidate; null while results are awaited, and for good once `ended_because` is set."""
        if not self._queue and not self._waiting() and self.ended_because is None:
            self._next_generation()
        return self._candidates[self._queue.pop(0)] if self._queue else None

    def tell(self, candidate_id: str, result: Result) -> None:
        """The result of a candidate that was asked for. Raises KeyError for one that was not, ValueError for a second result."""
        if candidate_id not in self._candidates or candidate_id in self._queue:
            raise KeyError(f"{candidate_id} was never proposed")
        if candidate_id in self._results:
            raise ValueError(f"{candidate_id} has a result already")
        self._results[candidate_id] = result
        if not self._queue and not self._waiting():
            self._survivors.append(self._tournament_winners())

    def candidate(self, candidate_id: str) -> Candidate:
        """One that was proposed. Raises KeyError for any other."""
        return self._candidates[candidate_id]

    def best(self) -> Standing | None:
        """The best configuration so far; null while none was feasible."""
        standings = self.standings()
        return standings[0] if standings and standings[0].fitness is not None else None

    def standings(self) -> list[Standing]:
        """Every configuration with a result that says something about it, best first."""
        told: dict[Hashable, list[tuple[Candidate, Result]]] = {}
        for candidate, result in self.history:
            if not result.transient:
                told.setdefault(self._space.key(candidate.params), []).append((candidate, result))
        return sorted((_standing(evaluations) for evaluations in told.values()), key=lambda standing: standing.rank)

    def _waiting(self) -> bool:
        current = self._generations[-1] if self._generations else []
        return any(candidate_id not in self._results for candidate_id in current)

    def _tournament_winners(self) -> list[str]:
        ranks = {self._space.key(standing.params): standing.rank for standing in self.standings()}
        competitors = [self._candidates[i] for i in self._generations[-1] if not self._results[i].transient]
        competitors.sort(key=lambda candidate: ranks[self._space.key(candidate.params)])
        return [candidate.candidate_id for candidate in competitors[: self._settings.survivors]]

    def _next_generation(self) -> None:
        number = len(self._generations)
        if number >= self._settings.generations:
            self.ended_because = "generations"
            return
        members = self._first_population() if number == 0 else self._next_population()
        if not any(origin != "elite" for origin, _ in members):
            self.ended_because = "space exhausted"
            return
        last = self._candidates[self._generations[-1][-1]].params if number else None
        members.sort(key=lambda member: (last is None or self._order_key(member[1]) != self._order_key(last), str(self._order_key(member[1]))))
        self._generations.append([])
        for index, (origin, params) in enumerate(members):
            candidate = Candidate(f"g{number}-c{index}", number, origin, params)
            self._candidates[candidate.candidate_id] = candidate
            self._generations[-1].append(candidate.candidate_id)
        self._queue = list(self._generations[-1])

    def _first_population(self) -> list[tuple[str, dict[str, Any]]]:
        chosen: list[tuple[str, dict[str, Any]]] = []
        if self._baseline is not None:
            chosen.append(("baseline", dict(self._baseline)))
        while len(chosen) < self._settings.initial and (params := self._fresh([p for _, p in chosen])):
            chosen.append(("initial", params))
        return chosen

    def _next_population(self) -> list[tuple[str, dict[str, Any]]]:
        s = self._settings
        best = self.best()
        members = [("elite", dict(best.params))] * s.elites if best else []
        parents = [self._candidates[i].params for i in self._survivors[-1]] or ([best.params] if best else [])
        for _ in range(s.tournament_size - s.fresh - len(members)):
            params = (self._offspring(parents, [p for _, p in members]) if parents else None) or self._fresh([p for _, p in members])
            if params:
                members.append(("offspring" if parents else "fresh", params))
        for _ in range(s.fresh):
            if params := self._fresh([p for _, p in members]):
                members.append(("fresh", params))
        return members

    def _taken(self, also: list[dict[str, Any]]) -> set[Hashable]:
        said_something = [c.params for c in self._candidates.values() if not (r := self._results.get(c.candidate_id)) or not r.transient]
        return {self._space.key(params) for params in (*said_something, *also)}

    def _offspring(self, parents: list[dict[str, Any]], also: list[dict[str, Any]]) -> dict[str, Any] | None:
        taken = self._taken(also)
        for attempt in range(_TRIES):
            mixed = {name: parents[int(self._rng.integers(len(parents)))].get(name) for name in self._space.names}
            child = self._space.repaired({name: value for name, value in mixed.items() if value is not None}, self._rng)
            for _ in range(1 + attempt // 20):  # further away when what is near is known
                child = self._space.mutate(child, self._rng)
            if self._space.key(child) not in taken and self._space.allows(child):
                return child
        return None

    def _fresh(self, also: list[dict[str, Any]]) -> dict[str, Any] | None:
        taken = self._taken(also)
        for _ in range(_TRIES):
            params = self._space.sample(self._rng)
            if self._space.key(params) not in taken and self._space.allows(params):
                return params
        if self._space.size <= _ENUMERABLE:
            left = [params for params in self._space.enumerate() if self._space.key(params) not in taken]
            return left[int(self._rng.integers(len(left)))] if left else None
        return None

    def state_dict(self) -> dict[str, Any]:
        """All of it as JSON values, the random state included."""
        return {
            "version": STATE_VERSION, "space": self._space.fingerprint(), "settings": asdict(self._settings),
            "rng": self._rng.bit_generator.state, "candidates": [asdict(c) for c in self._candidates.values()],
            "results": {i: asdict(r) for i, r in self._results.items()}, "generations": self._generations, "queue": self._queue,
            "survivors": self._survivors, "ended_because": self.ended_because,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved search was. Raises UserError for another version, another space or other settings."""
        if state.get("version") != STATE_VERSION:
            raise UserError(f"the saved search has version {state.get('version')}; this program reads {STATE_VERSION}")
        if state["space"] != self._space.fingerprint():
            raise UserError("the saved search belongs to another space; resume with the configuration of the run")
        if state["settings"] != asdict(self._settings):
            raise UserError("the saved search has other settings (search.*); resume with the configuration of the run")
        self._rng.bit_generator.state = state["rng"]
        self._candidates = {c["candidate_id"]: Candidate(**c) for c in state["candidates"]}
        self._results = {i: Result(**r) for i, r in state["results"].items()}
        self._generations = [list(ids) for ids in state["generations"]]
        self._queue, self._survivors = list(state["queue"]), [list(ids) for ids in state["survivors"]]
        self.ended_because = state["ended_because"]


def _standing(evaluations: list[tuple[Candidate, Result]]) -> Standing:
    params = evaluations[0][0].params
    ok = [result for _, result in evaluations if result.fitness is not None]
    windows = sum(max(1, result.n_windows) for result in ok)
    fitness = sum((result.fitness or 0.0) * max(1, result.n_windows) for result in ok) / windows if ok else None
    violation = min(result.violation for _, result in evaluations)
    return Standing(params, fitness, violation, len(evaluations), windows if ok else 0)
