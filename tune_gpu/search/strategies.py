"""Make the candidates of a generation: classic R-Zero, and R-Zero guided by a surrogate."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tune_gpu.config.schema import SearchSettings
from tune_gpu.search.confirmation import Confirmation
from tune_gpu.search.evaluations import Ledger, Result, Standing
from tune_gpu.search.one_thread import one_thread
from tune_gpu.search.space import Params, SearchSpace

Proposal = tuple[str, dict[str, Any]]
"""A proposal: its origin and its parameters."""
_TRIES = 200
_ENUMERABLE = 100_000
_MANY_TRIES = 20_000
"""Number of draws before a space that is too large to be enumerated counts as exhausted. Known constraints may forbid all but one in
thousands."""
_CLOSING, _LAST = 0.8, 0.9
"""Shares of the generations after which slots are used to measure the best again, if there is noise: see `GuidedStrategy._confirms`."""
_IMPROVING = 0.25
"""The search is improving if its later half has raised the best measurement by more than this many standard deviations of the noise. If
nothing is better than anything else, every third search seems to improve by luck, and the others confirm meanwhile."""
_IMPROVING_FAST = 2.0
"""Above this many it is improving fast: finding new configurations is worth more than comparing the known ones."""


class ProposalStrategy(Protocol):
    """Makes candidates from parents and from earlier results."""

    one_by_one: bool
    """Whether `one` may be called while results of the generation are awaited."""

    def plan(self, generations: int) -> None:
        """Set the number of generations."""

    def mark_pending(self, params: Params) -> None:
        """Record that the configuration was proposed."""

    def observe(self, params: Params, result: Result) -> None:
        """Learn from a result of the configuration."""

    def generation(self, number: int, given: list[Proposal], parents: list[dict[str, Any]], ledger: Ledger) -> list[Proposal]:
        """Return all members of a generation, `given` first. Return fewer, or an empty list, if the space is exhausted."""

    def one(self, number: int, at: int, parents: list[dict[str, Any]], ledger: Ledger) -> Proposal | None:
        """Return the member for this slot of a generation, or None if the space is exhausted."""

    def winner(self, ledger: Ledger) -> Standing | None:
        """Return the best configuration, or None before any result."""

    def state(self) -> dict[str, Any]:
        """Return the state that cannot be computed from the history, as JSON values."""

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state`, after the history was replayed."""


class ClassicStrategy:
    """The original R-Zero: the elite measured again, crossover and one mutation, fresh random candidates."""

    one_by_one = False

    def __init__(self, space: SearchSpace, settings: SearchSettings, rng: np.random.Generator) -> None:
        self._space, self._settings, self._rng = space, settings, rng

    def plan(self, generations: int) -> None:
        """Do nothing, because the last generation is made like the others."""

    def mark_pending(self, params: Params) -> None:
        """Do nothing, because this strategy uses only the ledger."""

    def observe(self, params: Params, result: Result) -> None:
        """Do nothing, because this strategy uses only the ledger."""

    def generation(self, number: int, given: list[Proposal], parents: list[dict[str, Any]], ledger: Ledger) -> list[Proposal]:
        """Implement `ProposalStrategy`."""
        taken = ledger.proposed()
        return self._first_population(given, taken) if number == 0 else self._next_population(parents, ledger, taken)

    def one(self, number: int, at: int, parents: list[dict[str, Any]], ledger: Ledger) -> Proposal | None:
        """Raise NotImplementedError, because classic generations are made as a whole."""
        raise NotImplementedError("classic R-Zero makes whole generations")

    def winner(self, ledger: Ledger) -> Standing | None:
        """Return the configuration with the highest mean."""
        return ledger.best()

    def state(self) -> dict[str, Any]:
        """Return an empty state, because the tournament keeps the random state."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _first_population(self, given: list[Proposal], taken: set[Hashable]) -> list[Proposal]:
        chosen = [(origin, self._claim(dict(params), taken)) for origin, params in given]
        while len(chosen) < self._settings.initial and (params := self._fresh(taken)):
            chosen.append(("initial", params))
        return chosen

    def _next_population(self, parents: list[dict[str, Any]], ledger: Ledger, taken: set[Hashable]) -> list[Proposal]:
        s = self._settings
        best = self.winner(ledger)
        members: list[Proposal] = [("elite", dict(best.params))] * s.elites if best and best.fitness is not None else []
        for _ in range(s.tournament_size - s.fresh - len(members)):
            params = (self._offspring(parents, taken) if parents else None) or self._fresh(taken)
            if params:
                members.append(("offspring" if parents else "fresh", params))
        for _ in range(s.fresh):
            if params := self._fresh(taken):
                members.append(("fresh", params))
        return members

    def _claim(self, params: dict[str, Any], taken: set[Hashable]) -> dict[str, Any]:
        taken.add(self._space.key(params))
        return params

    def _offspring(self, parents: list[dict[str, Any]], taken: set[Hashable]) -> dict[str, Any] | None:
        for attempt in range(_TRIES):
            givers = {name: parents[int(self._rng.integers(len(parents)))] for name in self._space.names}
            child = self._space.repaired({name: giver[name] for name, giver in givers.items() if name in giver}, self._rng)
            for _ in range(1 + attempt // 20):  # move further away once all near configurations are known
                child = self._space.mutate(child, self._rng)
            if self._space.key(child) not in taken and self._space.allows(child):
                return self._claim(child, taken)
        return None

    def _fresh(self, taken: set[Hashable]) -> dict[str, Any] | None:
        enumerable = self._space.size <= _ENUMERABLE
        for _ in range(_TRIES if enumerable else _MANY_TRIES):
            params = self._space.sample(self._rng)
            if self._space.key(params) not in taken and self._space.allows(params):
                return self._claim(params, taken)
        if enumerable:
            left = [params for params in self._space.enumerate() if self._space.key(params) not in taken]
            return self._claim(left[int(self._rng.integers(len(left)))], taken) if left else None
        return None


class GuidedStrategy:
    """R-Zero with a surrogate: see `guided.py`.

    The elite takes part in every tournament with its earlier results. It is measured again only if a challenger comes close and
    measurements are noisy. While the search is improving that waits for its last fifth (improving fast: its last tenth): a repetition costs
    a new configuration, and tells apart configurations that will not be the best in the end.
    """

    one_by_one = True

    def __init__(self, space: SearchSpace, settings: SearchSettings, rng: np.random.Generator) -> None:
        from tune_gpu.search.guided import Guided  # imports scikit-learn, which takes half a second that classic R-Zero does not need

        self._space, self._settings, self._guided = space, settings, Guided(space, rng, directions=settings.objectives)
        self._confirmation = Confirmation()

    def plan(self, generations: int) -> None:
        """Set the number of generations. The last fifth of them also distinguishes the best from each other."""
        self._settings = replace(self._settings, generations=generations)

    def mark_pending(self, params: Params) -> None:
        """Implement `ProposalStrategy`."""
        self._guided.mark_pending(params)

    def observe(self, params: Params, result: Result) -> None:
        """Implement `ProposalStrategy`."""
        self._guided.observe(params, result.fitness, transient=result.transient, objectives=result.objectives)
        self._confirmation.observe(self._space.key(params), dict(params), result)

    def generation(self, number: int, given: list[Proposal], parents: list[dict[str, Any]], ledger: Ledger) -> list[Proposal]:
        """Return all members of a generation. Each is made as if the earlier ones were already being measured."""
        size = self._settings.tournament_size if number else self._settings.initial
        members = list(given)
        for _, params in members:
            self._guided.mark_pending(params)
        while len(members) < size and (member := self.one(number, len(members), parents, ledger)):
            members.append(member)
            self._guided.mark_pending(member[1])
        for _, params in reversed(members):  # the tournament marks them itself, in its own order
            self._guided.unmark(params)
        return members

    def one(self, number: int, at: int, parents: list[dict[str, Any]], ledger: Ledger) -> Proposal | None:  # noqa: ARG002 - ProposalStrategy
        """Return the member for this slot. The first slots repeat the elite and its challenger if needed, the last ones are for fresh
        candidates, and the one before them for a step from the elite."""
        size = self._settings.tournament_size
        if self._confirms(number, at):
            for params in self._confirmation.contenders():
                if not self._guided.awaits(params):
                    return "elite", params
        fresh = number > 0 and at >= size - self._settings.fresh
        step = number > 0 and at == size - self._settings.fresh - 1
        with one_thread():
            known = self._confirmation
            member = self._guided.propose(list(parents), fresh=fresh, step=step, noise_free=known.noise_free, no_signal=known.no_signal)
        return ("initial", member[1]) if member and number == 0 else member

    def _confirms(self, number: int, at: int) -> bool:
        """Return whether this slot of a generation measures the leader or its rival again.

        One slot does, or none while the search is improving. In the last fifth of the generations two do, or none while it is improving
        fast; in the last tenth one does in any case. A slot for a fresh candidate never does.
        """
        s = self._settings
        closing, last = number >= _CLOSING * s.generations, number >= _LAST * s.generations
        if number == 0 or at >= min(s.elites * (2 if closing else 1), s.tournament_size - s.fresh):
            return False
        return (last and at < s.elites) or not self._improving(_IMPROVING_FAST if closing else _IMPROVING)

    def _improving(self, deviations: float) -> bool:
        """Return whether new configurations still raise the best by more than this many standard deviations of the noise."""
        noise = self._confirmation.noise
        return noise is not None and self._confirmation.noisy and self._guided.progress() > deviations * noise

    def winner(self, ledger: Ledger) -> Standing | None:
        """Return the configuration with the highest lower confidence bound if there is noise, else with the highest mean."""
        best = self._confirmation.winner()
        return ledger.standing(best) if best is not None else None

    def state(self) -> dict[str, Any]:
        """Implement `ProposalStrategy`."""
        return self._guided.state()

    def load(self, state: dict[str, Any]) -> None:
        """Implement `ProposalStrategy`."""
        self._guided.load(state)
