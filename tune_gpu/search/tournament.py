"""R-Zero, pure: populations in, populations out.

A generation competes in a tournament; its best survive and have offspring (crossover, then a step of one parameter). The next generation
is the elite (the best of all so far, measured again, so that it stays the best only if it is), the offspring, and fresh random
candidates, so that no corner is forgotten. Nothing is proposed twice but the elite. After the last generation one that would win by a
single evaluation can be measured again (`recheck`). `ask` and `tell` in any order of results; a seed decides everything else. Knows
neither Ray nor GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import check_numbers
from tune_gpu.config.schema import SearchSettings
from tune_gpu.search.breeders import ClassicStrategy, GuidedStrategy, Member, ProposalStrategy
from tune_gpu.search.evaluations import Candidate, Ledger, Result, Standing
from tune_gpu.search.pareto import first_front, matrix, select
from tune_gpu.search.space import Params, SearchSpace

__all__ = ["Candidate", "Result", "Standing", "Tournament", "check"]
STATE_VERSION = 4


def check(settings: SearchSettings) -> None:
    """Raises UserError for settings that make no tournament."""
    check_numbers(settings, "search.")
    rules = [
        (settings.algorithm in ("rzero", "classic"), f"search.algorithm={settings.algorithm}: allowed: rzero, classic"),
        (settings.survivors <= settings.tournament_size,
         f"search.survivors={settings.survivors}: allowed is 1 to search.tournament_size={settings.tournament_size}"),
        (settings.elites + settings.fresh < settings.tournament_size,
         f"search.elites + search.fresh = {settings.elites + settings.fresh}: allowed is less than "
         f"search.tournament_size={settings.tournament_size}, so that there are offspring"),
        *((direction in ("max", "min"), f"search.objectives.{name}={direction}: allowed are max, min")
          for name, direction in settings.objectives.items()),
    ]
    for holds, message in rules:
        if not holds:
            raise UserError(message)


class Tournament:
    """The search as ask/tell.

    Args:
        space: what may be proposed.
        settings: algorithm, sizes and seed; the sizes are the classic 2 + 4 + 4 + 4 unless given.
        baseline: what runs today; the first of the first generation.
        points: more of the first generation, which grows if they are more than `initial`; one that is there already is left out.
        order_key: within a generation, candidates with equal keys stand together (those that share an engine, say).
    """

    def __init__(
        self, space: SearchSpace, settings: SearchSettings, *, baseline: Params | None = None,
        order_key: Callable[[Params], Hashable] | None = None, points: Sequence[Params] = (),
    ) -> None:
        check(settings)
        self._given: list[Member] = []
        for origin, name, params in [*([("baseline", "baseline", baseline)] if baseline is not None else []),
                                     *(("initial", f"points[{i}]", point) for i, point in enumerate(points))]:
            try:
                own = space.own(params)
            except UserError as error:
                raise UserError(f"{name}.{error}") from error
            if all(space.key(own) != space.key(other) for _, other in self._given):
                self._given.append((origin, own))
        self._space, self._settings = space, settings
        self._order_key = order_key or (lambda _params: 0)
        self._rng = np.random.default_rng(settings.seed)
        self._breeder: ProposalStrategy = GuidedStrategy(space, settings, self._rng) if settings.algorithm == "rzero" else \
            ClassicStrategy(space, settings, self._rng)
        wanted = settings.asynchronous
        self._asynchronous = self._breeder.one_by_one and (order_key is None if wanted is None else wanted)
        self._known: list[tuple[dict[str, Any], Result]] = []
        self._results: dict[str, Result] = {}
        self._candidates: dict[str, Candidate] = {}
        self._generations: list[list[str]] = []
        self._queue: list[str] = []
        self._survivors: list[list[str]] = []
        self._ending: tuple[str, int] | None = None  # why, and from which generation on each is one configuration, measured again
        self._ledger = Ledger(space)
        self._excused: set[Hashable] = set()
        self._transient: list[tuple[int, str, Result]] = []  # with how many results were told before: another may follow, and these count still
        self._told = 0
        self.ended_because: str | None = None
        """Why no more is proposed: `generations` or `space exhausted`; null while it goes on."""

    @property
    def space(self) -> SearchSpace:
        """Return what may be proposed."""
        return self._space

    @property
    def settings(self) -> SearchSettings:
        """As given."""
        return self._settings

    @property
    def generation(self) -> int:
        """The number of the generation that competes now, from 0."""
        return max(0, len(self._generations) - 1)

    @property
    def total_evaluations(self) -> int:
        """Return how many are planned (fewer if the space is smaller); what is measured again in the end counts from its proposal on."""
        return self._size(0) + (self._settings.generations - 1) * self._settings.tournament_size + self._rechecks

    def plan(self, evaluations: int) -> None:
        """As many generations as so many evaluations need, if those in the settings are fewer."""
        needed = 1 + math.ceil((evaluations - self._size(0)) / self._settings.tournament_size)
        if needed > self._settings.generations:
            self._settings = replace(self._settings, generations=needed)
            self._breeder.plan(needed)
            if self._ending and self._ending[0] == "generations":
                self._ending = self.ended_because = None

    def know(self, params: Params, result: Result) -> None:
        """A result from elsewhere (an earlier search, say): it counts as measured, is not proposed but to be confirmed, and takes no evaluation.

        Raises:
            UserError: the search has begun, or the configuration is outside its space.
            ValueError: it is ok and lacks an objective.
        """
        if self._candidates:
            raise UserError("results from elsewhere are told before the first proposal; this search has begun")
        params = self._space.own(params)
        self._want_objectives(str(params), result)
        self._known.append((params, result))
        self._take(params)
        self._learn(params, result)

    @property
    def finished(self) -> bool:
        """Nothing will be proposed any more, and every result is in."""
        return self.ended_because is not None and not self._waiting()

    @property
    def queued(self) -> int:
        """Return how many candidates are decided and not asked for yet."""
        return len(self._queue)

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
        if not self._queue and self.ended_because is None:
            if self._ending:
                self._recheck()
            elif self._asynchronous:
                self._next_member()
            elif not self._waiting():
                self._next_generation()
        return self._candidates[self._queue.pop(0)] if self._queue else None

    def tell(self, candidate_id: str, result: Result) -> None:
        """The result of a candidate that was asked for; one that says something may follow one that does not.

        A transient failure says nothing of its configuration, which may be proposed once more; when that fails so too, it has failed.

        Raises:
            KeyError: it was not asked for.
            ValueError: it has a result already, or this one lacks an objective.
        """
        if candidate_id not in self._candidates or candidate_id in self._queue:
            raise KeyError(f"{candidate_id} was never proposed")
        again = self._results.get(candidate_id)
        if again is not None and (not again.transient or result.transient):
            raise ValueError(f"{candidate_id} has a result already")
        self._want_objectives(candidate_id, result)
        candidate = self._candidates[candidate_id]
        if self._results.pop(candidate_id, None) is not None:
            self._take(candidate.params)
        if result.transient:
            self._transient.append((self._told, candidate_id, result))
        self._told += 1
        self._results[candidate_id] = result
        self._learn(candidate.params, result)
        if result.transient and self._ending and self._ending[0] == "space exhausted" and self._space.key(candidate.params) not in self._ledger.taken():
            self._ending = None
            del self._survivors[len(self._generations) - 1:]
        while len(self._survivors) < len(self._generations) and self._decided(len(self._survivors)):
            self._survivors.append(self._tournament_winners(len(self._survivors)))

    def _take(self, params: Params) -> None:
        self._ledger.take(params)
        self._breeder.take(params)

    def _learn(self, params: Params, result: Result) -> None:
        key = self._space.key(params)
        if result.transient and key in self._excused:
            result = replace(result, transient=False)
        elif result.transient:
            self._excused.add(key)
        self._ledger.tell(params, result)
        self._breeder.tell(params, result)

    def _want_objectives(self, what: str, result: Result) -> None:
        missing = [name for name in self._settings.objectives if result.status == "ok" and name not in result.objectives]
        if missing:
            raise ValueError(f"{what} is ok and has no {', '.join(missing)}: search.objectives wants each of them")

    def candidate(self, candidate_id: str) -> Candidate:
        """One that was proposed. Raises KeyError for any other."""
        return self._candidates[candidate_id]

    def best(self) -> Standing | None:
        """The best configuration so far; null while none was feasible. Guided R-Zero weighs the luck of single measurements (see there)."""
        chosen = self._breeder.winner(self._ledger)
        return chosen if chosen is not None and chosen.fitness is not None else None

    def front(self) -> list[Standing]:
        """Pareto mode: the feasible configurations that no other one beats in every objective, the best fitness first; else none."""
        feasible = [standing for standing in self.standings() if standing.fitness is not None]
        if not self._settings.objectives or not feasible:
            return []
        return [feasible[i] for i in first_front(self._values(feasible))]

    def standings(self) -> list[Standing]:
        """Every configuration with a result that says something about it, best first."""
        return self._ledger.standings()

    def _waiting(self) -> bool:
        return len(self._results) < len(self._candidates)

    @property
    def _rechecks(self) -> int:
        return len(self._generations) - self._ending[1] if self._ending else 0

    def _size(self, number: int) -> int:
        if self._ending and number >= self._ending[1]:
            return 1
        return max(self._settings.initial, len(self._given)) if number == 0 else self._settings.tournament_size

    def _decided(self, number: int) -> bool:
        members = self._generations[number]
        whole = len(members) >= self._size(number) or number < len(self._generations) - 1 or self._ending is not None \
            or not self._asynchronous
        return whole and all(candidate_id in self._results for candidate_id in members)

    def _tournament_winners(self, number: int) -> list[str]:
        competitors = [self._candidates[i] for i in self._generations[number] if not self._results[i].transient]
        competitors.sort(key=lambda candidate: self._ledger.standing(candidate.params).rank)
        if self._settings.objectives:
            feasible = [candidate for candidate in competitors if self._ledger.standing(candidate.params).fitness is not None]
            chosen = select(self._values([self._ledger.standing(candidate.params) for candidate in feasible]), self._settings.survivors)
            competitors = [feasible[i] for i in chosen] + [candidate for candidate in competitors if candidate not in feasible]
        return [candidate.candidate_id for candidate in competitors[: self._settings.survivors]]

    def _values(self, standings: list[Standing]) -> NDArray[np.float64]:
        wanted = self._settings.objectives
        return matrix([[standing.objectives[name] for name in wanted] for standing in standings], list(wanted.values()))

    def _parents(self) -> list[dict[str, Any]]:
        survivors = [self._candidates[i].params for i in (self._survivors[-1] if self._survivors else [])]
        best = self.best()
        return survivors or ([best.params] if best else [])

    def _next_member(self) -> None:
        """Asynchronous: one more candidate of the generation that is being filled, from all the results that are in."""
        begins = not self._generations or len(self._generations[-1]) >= self._size(len(self._generations) - 1)
        if begins and len(self._generations) >= self._settings.generations:
            self._end("generations")
            return
        number, at = (len(self._generations), 0) if begins else (len(self._generations) - 1, len(self._generations[-1]))
        if number == 0 and at < len(self._given):
            member: Member | None = self._given[at]
        else:
            member = self._breeder.one(number, at, self._parents(), self._ledger)
        if member is None:
            self._end("space exhausted")
            return
        if begins:
            self._generations.append([])
        self._enlist(number, [member])

    def _end(self, why: str) -> None:
        """No more is bred."""
        self._ending = (why, len(self._generations))
        self._recheck()

    def _recheck(self) -> None:
        """Once all results are in, a configuration that would win by its only evaluation is measured again."""
        assert self._ending is not None
        if self._ending[0] == "space exhausted" and self._waiting():
            return  # a transient failure gives one back
        if self._rechecks < self._settings.recheck:
            if self._waiting():
                return
            best = self.best()
            if best is not None and best.n_evaluations == 1 and len(self.standings()) > 1:
                self._generations.append([])
                self._enlist(len(self._generations) - 1, [("elite", dict(best.params))])
                return
        self.ended_because = self._ending[0]

    def _next_generation(self) -> None:
        number = len(self._generations)
        if number >= self._settings.generations:
            self._end("generations")
            return
        members = self._breeder.generation(number, [] if number else self._given, self._parents(), self._ledger)
        if not any(origin != "elite" for origin, _ in members):
            self._end("space exhausted")
            return
        last = self._candidates[self._generations[-1][-1]].params if number else None
        members.sort(key=lambda member: (last is None or self._order_key(member[1]) != self._order_key(last), str(self._order_key(member[1]))))
        self._generations.append([])
        self._enlist(number, members)

    def _enlist(self, number: int, members: list[Member]) -> None:
        for origin, params in members:
            candidate = Candidate(f"g{number}-c{len(self._generations[number])}", number, origin, params, self._told)
            self._candidates[candidate.candidate_id] = candidate
            self._generations[number].append(candidate.candidate_id)
            self._queue.append(candidate.candidate_id)
            self._take(params)

    def state_dict(self) -> dict[str, Any]:
        """All of it as JSON values, the random state included."""
        return {
            "version": STATE_VERSION, "space": self._space.fingerprint(), "settings": asdict(self._settings),
            "rng": self._rng.bit_generator.state,
            "candidates": [asdict(replace(c, params=self._space.saved(c.params))) for c in self._candidates.values()],
            "results": {i: asdict(r) for i, r in self._results.items()}, "generations": self._generations, "queue": self._queue,
            "survivors": self._survivors, "breeder": self._breeder.state(), "ended_because": self.ended_because,
            "transient": [[before, i, asdict(r)] for before, i, r in self._transient],
            "ending": self._ending, "known": [[self._space.saved(params), asdict(result)] for params, result in self._known],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved search was. Raises UserError for another version, another space, other settings or other results from elsewhere (`know`)."""
        if state.get("version") != STATE_VERSION:
            raise UserError(f"the saved search has version {state.get('version')}; this program reads {STATE_VERSION}")
        if state["space"] != self._space.fingerprint():
            raise UserError("the saved search belongs to another space; resume with the configuration of the run")
        if state["settings"] != asdict(self._settings):
            raise UserError("the saved search has other settings (search.*); resume with the configuration of the run")
        known = [(self._space.loaded(params), Result(**result)) for params, result in state.get("known", ())]
        if not self._known:
            for params, result in known:
                self.know(params, result)
        elif self._known != known:
            raise UserError("the saved search was told other results from elsewhere; resume it without any, or with the same")
        self._candidates = {c["candidate_id"]: Candidate(**c | {"params": self._space.loaded(c["params"])}) for c in state["candidates"]}
        self._results = {i: Result(**r) for i, r in state["results"].items()}
        self._generations = [list(ids) for ids in state["generations"]]
        self._queue, self._survivors = list(state["queue"]), [list(ids) for ids in state["survivors"]]
        self.ended_because, self._ending = state["ended_because"], state["ending"] and tuple(state["ending"])
        for candidate in self._candidates.values():
            self._take(candidate.params)
        self._transient = [(before, i, Result(**r)) for before, i, r in state.get("transient", ())]
        told = [(i, result) for i, result in self._results.items() if not result.transient or "transient" not in state]
        for before, candidate_id, result in self._transient:
            told.insert(before, (candidate_id, result))
        self._told = len(told)
        told_before: set[str] = set()
        for candidate_id, result in told:
            params = self._candidates[candidate_id].params
            if candidate_id in told_before:
                self._take(params)
            told_before.add(candidate_id)
            self._learn(params, result)
        self._breeder.load(state["breeder"])
        self._rng.bit_generator.state = state["rng"]
