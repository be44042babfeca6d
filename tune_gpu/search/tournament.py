"""R-Zero as a pure ask/tell search.

A generation competes in a tournament. Its best survive and have offspring (crossover, then a step of one parameter). The next generation
has the elite (the best so far, measured again, so that a lucky measurement does not stay the best), the offspring, and fresh random
candidates, so that no part of the space is forgotten. Only the elite is proposed twice. After the last generation a leader that would win
by a single evaluation can be measured again (`recheck`). Results may arrive in any order; the seed decides everything else. The module is
independent of Ray and of GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check
from tune_gpu.config.schema import SearchSettings
from tune_gpu.search import ending, selection
from tune_gpu.search.ending import Closing, Ended, Over, Phase, Rechecking, Searching
from tune_gpu.search.evaluations import Candidate, Result, Standing
from tune_gpu.search.history import History
from tune_gpu.search.learner import Learner
from tune_gpu.search.order import StartKey, fewest_starts
from tune_gpu.search.space import Params, SearchSpace
from tune_gpu.search.strategies import Proposal

__all__ = ["Candidate", "Result", "Standing", "Tournament"]
STATE_VERSION = 4


def _first_members(space: SearchSpace, baseline: Params | None, points: Sequence[Params]) -> list[Proposal]:
    """Return the given members of the first generation, without duplicates. Raise UserError for a configuration outside the space."""
    found: dict[Hashable, Proposal] = {}
    named = [("baseline", "baseline", baseline)] if baseline is not None else []
    for origin, name, params in [*named, *(("initial", f"points[{i}]", point) for i, point in enumerate(points))]:
        try:
            own = space.canonical(params)
        except UserError as error:
            raise UserError(f"{name}.{error}") from error
        found.setdefault(space.key(own), (origin, own))
    return list(found.values())


def _check_state(state: dict[str, Any], space: SearchSpace, settings: SearchSettings) -> None:
    """Raise UserError for a saved search of another version, space or settings."""
    if state.get("version") != STATE_VERSION:
        raise UserError(f"the saved search has version {state.get('version')}, but this program reads version {STATE_VERSION}. Use the program that saved it.")
    if state["space"] != space.fingerprint():
        raise UserError("the saved search belongs to another space. Resume it with the configuration of the run.")
    if state["settings"] != asdict(settings):
        raise UserError("the saved search has other settings (search.*). Resume it with the configuration of the run.")


def _check_objectives(what: str, result: Result, objectives: Collection[str]) -> None:
    """Raise ValueError for a result that is ok but lacks one of the objectives."""
    missing = [name for name in objectives if result.status == "ok" and name not in result.objectives]
    if missing:
        raise ValueError(f"{what} is ok but has no {', '.join(missing)}: search.objectives needs all of them")


class Tournament:
    """The search as ask/tell.

    Args:
        space: the space of proposals.
        settings: algorithm, sizes and seed. The default sizes are the classic 2 + 4 + 4 + 4.
        baseline: the current configuration, which is the first member of the first generation.
        points: further members of the first generation, which grows if they are more than `initial`. Duplicates are left out.
        order_key: which services a candidate starts. Within a generation, candidates follow each other so that few services start anew.

    Raises:
        UserError: the settings are invalid, or the baseline or a point is outside the space.
    """

    def __init__(
        self, space: SearchSpace, settings: SearchSettings, *, baseline: Params | None = None,
        order_key: Callable[[Params], StartKey] | None = None, points: Sequence[Params] = (),
    ) -> None:
        check(settings, "search.")
        self._given = _first_members(space, baseline, points)
        self._space, self._settings = space, settings
        self._order_key: Callable[[Params], StartKey] = order_key or (lambda _params: ())
        self._rng = np.random.default_rng(settings.seed)
        self._learner = Learner(space, settings, self._rng)
        self._strategy = self._learner.strategy
        wanted = settings.asynchronous
        self._asynchronous = self._strategy.one_by_one and (order_key is None if wanted is None else wanted)
        self._known: list[tuple[dict[str, Any], Result]] = []
        self._log = History()
        self._phase: Phase = Searching()

    @property
    def space(self) -> SearchSpace:
        """Return the space of proposals."""
        return self._space

    @property
    def settings(self) -> SearchSettings:
        """Return the settings, with the number of generations as changed by `plan`."""
        return self._settings

    @property
    def ended_because(self) -> Ended | None:
        """Return why nothing more is proposed, or None while the search goes on."""
        return self._phase.why if isinstance(self._phase, Over) else None

    @property
    def generation(self) -> int:
        """Return the number of the current generation, from 0."""
        return max(0, len(self._log.generations) - 1)

    @property
    def total_evaluations(self) -> int:
        """Return how many evaluations are planned. A smaller space ends earlier; a repeated measurement counts once it is proposed."""
        return self._size(0) + (self._settings.generations - 1) * self._settings.tournament_size + self._rechecks

    def plan(self, evaluations: int) -> None:
        """Raise the number of generations so that there are at least this many evaluations."""
        needed = 1 + math.ceil((evaluations - self._size(0)) / self._settings.tournament_size)
        if needed > self._settings.generations:
            self._settings = replace(self._settings, generations=needed)
            self._strategy.plan(needed)
            if self._phase.why is Ended.GENERATIONS:
                self._phase = Searching()

    def add_evaluated(self, params: Params, result: Result) -> None:
        """Add a result from elsewhere (an earlier search, say). It counts as measured and takes no evaluation; only a confirmation
        repeats it.

        Raises:
            UserError: the search has begun, or the configuration is outside its space.
            ValueError: the result is ok and lacks an objective.
        """
        if self._log.candidates:
            raise UserError("results from elsewhere: this search has begun. Add them before the first proposal.")
        params = self._space.canonical(params)
        _check_objectives(str(params), result, self._settings.objectives)
        self._known.append((params, result))
        self._learner.mark_pending(params)
        self._learner.learn(params, result)

    @property
    def finished(self) -> bool:
        """Return whether nothing more will be proposed and all results have arrived."""
        return isinstance(self._phase, Over) and not self._log.waiting

    @property
    def queued(self) -> int:
        """Return the number of candidates that were decided but not asked for yet."""
        return self._log.queued

    @property
    def history(self) -> list[tuple[Candidate, Result]]:
        """Return every result so far, in the order of the results."""
        return [(self._log.candidates[candidate_id], result) for candidate_id, result in self._log.results.items()]

    @property
    def survivors(self) -> list[list[str]]:
        """Return for each ended generation the ids of the candidates that survived it, best first."""
        return [list(ids) for ids in self._log.survivors]

    def ask(self) -> Candidate | None:
        """Return the next candidate. Return None while results are awaited, and always once `ended_because` is set."""
        if not self._log.queued:
            match self._phase:
                case Rechecking():
                    self._close(self._phase)
                case Searching() if self._asynchronous:
                    self._next_member()
                case Searching() if not self._log.waiting:
                    self._next_generation()
        return self._log.hand_out()

    def tell(self, candidate_id: str, result: Result) -> None:
        """Record the result of a candidate that was asked for. A transient failure may be followed by one more result.

        After a transient failure the configuration may be proposed once more. A second transient failure counts as a failure.

        Raises:
            KeyError: the candidate was not asked for.
            ValueError: the candidate has a result already, or this one lacks an objective.
        """
        self._log.check(candidate_id, result)
        _check_objectives(candidate_id, result, self._settings.objectives)
        params = self._log.candidates[candidate_id].params
        if self._log.record(candidate_id, result):
            self._learner.mark_pending(params)
        self._learner.learn(params, result)
        if result.transient and self._phase.why is Ended.SPACE_EXHAUSTED and self._learner.proposable(params):
            self._phase = Searching()
            self._log.reopen()
        while (number := len(self._log.survivors)) < len(self._log.generations) and self._decided(number):
            self._log.survivors.append(self._tournament_winners(number))

    def candidate(self, candidate_id: str) -> Candidate:
        """Return a candidate that was proposed. Raise KeyError for any other id."""
        return self._log.candidates[candidate_id]

    def best(self) -> Standing | None:
        """Return the best configuration so far, or None while none was feasible. Guided R-Zero discounts the luck of single
        measurements."""
        return self._learner.best()

    def front(self) -> list[Standing]:
        """Return in Pareto mode the feasible configurations that no other one beats in every objective, the best fitness first. Return an
        empty list otherwise."""
        return self._learner.front()

    def standings(self) -> list[Standing]:
        """Return the standings of all configurations that have more than transient failures, best first."""
        return self._learner.ledger.standings()

    @property
    def _rechecks(self) -> int:
        return 0 if isinstance(self._phase, Searching) else len(self._log.generations) - self._phase.since

    def _size(self, number: int) -> int:
        if not isinstance(self._phase, Searching) and number >= self._phase.since:
            return 1
        return max(self._settings.initial, len(self._given)) if number == 0 else self._settings.tournament_size

    def _decided(self, number: int) -> bool:
        members = self._log.generations[number]
        whole = len(members) >= self._size(number) or number < len(self._log.generations) - 1 or not isinstance(self._phase, Searching) \
            or not self._asynchronous
        return whole and all(candidate_id in self._log.results for candidate_id in members)

    def _tournament_winners(self, number: int) -> list[str]:
        competitors = [i for i in self._log.generations[number] if not self._log.results[i].transient]
        standings = [self._learner.ledger.standing(self._log.candidates[i].params) for i in competitors]
        return [competitors[at] for at in selection.survivors(standings, self._settings.survivors, self._settings.objectives)]

    def _parents(self) -> list[dict[str, Any]]:
        survivors = [self._log.candidates[i].params for i in (self._log.survivors[-1] if self._log.survivors else [])]
        best = self.best()
        return survivors or ([best.params] if best else [])

    def _next_member(self) -> None:
        """Propose one more candidate of the current generation, from all results so far (asynchronous)."""
        generations = self._log.generations
        begins = not generations or len(generations[-1]) >= self._size(len(generations) - 1)
        if begins and len(generations) >= self._settings.generations:
            self._end(Ended.GENERATIONS)
            return
        number, at = (len(generations), 0) if begins else (len(generations) - 1, len(generations[-1]))
        given = number == 0 and at < len(self._given)
        member = self._given[at] if given else self._strategy.one(number, at, self._parents(), self._learner.ledger)
        if member is None:
            self._end(Ended.SPACE_EXHAUSTED)
            return
        self._propose(number, [member])

    def _next_generation(self) -> None:
        number = len(self._log.generations)
        if number >= self._settings.generations:
            self._end(Ended.GENERATIONS)
            return
        members = self._strategy.generation(number, [] if number else self._given, self._parents(), self._learner.ledger)
        if not any(origin != "elite" for origin, _ in members):
            self._end(Ended.SPACE_EXHAUSTED)
            return
        last = self._log.last_params()
        self._propose(number, fewest_starts(members, lambda member: self._order_key(member[1]), None if last is None else self._order_key(last)))

    def _propose(self, number: int, members: list[Proposal]) -> None:
        for origin, params in members:
            self._log.propose(number, origin, params)
            self._learner.mark_pending(params)

    def _end(self, why: Ended) -> None:
        self._phase = Rechecking(why, len(self._log.generations))
        self._close(self._phase)

    def _close(self, phase: Rechecking) -> None:
        """Wait, measure the leader again, or end: see `ending.closing`."""
        step = ending.closing(
            phase, waiting=self._log.waiting, rechecks=self._rechecks, limit=self._settings.recheck, needs_recheck=self._learner.leads_by_one_evaluation)
        if step is Closing.END:
            self._phase = Over(phase.why, phase.since)
        elif step is Closing.RECHECK and (best := self.best()) is not None:
            self._propose(len(self._log.generations), [("elite", dict(best.params))])

    def state_dict(self) -> dict[str, Any]:
        """Return the whole search as JSON values, including the random state."""
        return {
            "version": STATE_VERSION, "space": self._space.fingerprint(), "settings": asdict(self._settings),
            "rng": self._rng.bit_generator.state, "breeder": self._strategy.state(), **self._log.state(self._space), **ending.saved(self._phase),
            "known": [[self._space.saved(params), asdict(result)] for params, result in self._known],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved search.

        Raises:
            UserError: the state has another version, space or settings, or other results from elsewhere (`add_evaluated`).
        """
        _check_state(state, self._space, self._settings)
        self._load_known(state)
        results = self._log.load(state, self._space)
        self._phase = ending.loaded(state)
        self._learner.replay(self._log.candidates, results)
        self._strategy.load(state["breeder"])
        self._rng.bit_generator.state = state["rng"]

    def _load_known(self, state: dict[str, Any]) -> None:
        known = [(self._space.loaded(params), Result(**result)) for params, result in state.get("known", ())]
        if not self._known:
            for params, result in known:
                self.add_evaluated(params, result)
        elif self._known != known:
            raise UserError("the saved search has other results from elsewhere. Resume it without any, or with the same.")
