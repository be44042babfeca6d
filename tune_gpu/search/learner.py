"""Update the standings and the proposal strategy from results."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from tune_gpu.config.schema import SearchSettings
from tune_gpu.search import selection
from tune_gpu.search.evaluations import Candidate, Ledger, Result, Standing
from tune_gpu.search.space import Params, SearchSpace
from tune_gpu.search.strategies import ClassicStrategy, GuidedStrategy, ProposalStrategy


class Learner:
    """Keeps the ledger and the proposal strategy in step.

    Args:
        space: the space of proposals.
        settings: the strategy and its sizes.
        rng: makes every random choice of the strategy.
    """

    def __init__(self, space: SearchSpace, settings: SearchSettings, rng: np.random.Generator) -> None:
        self._space = space
        self._objectives = settings.objectives
        make = GuidedStrategy if settings.algorithm == "rzero" else ClassicStrategy
        self.strategy: ProposalStrategy = make(space, settings, rng)
        self.ledger = Ledger(space)
        self._excused: set[Hashable] = set()
        """Configurations with one transient failure. A second one counts as a failure."""

    def mark_pending(self, params: Params) -> None:
        """Record that the configuration was proposed."""
        self.ledger.mark_pending(params)
        self.strategy.mark_pending(params)

    def learn(self, params: Params, result: Result) -> None:
        """Learn from a result of a configuration that was proposed."""
        key = self._space.key(params)
        if result.transient and key in self._excused:
            result = replace(result, transient=False)
        elif result.transient:
            self._excused.add(key)
        self.ledger.observe(params, result)
        self.strategy.observe(params, result)

    def replay(self, candidates: Mapping[str, Candidate], results: Iterable[tuple[str, Result]]) -> None:
        """Replay a saved search: its candidates, then their results in order. Some have a second result."""
        for candidate in candidates.values():
            self.mark_pending(candidate.params)
        seen: set[str] = set()
        for candidate_id, result in results:
            params = candidates[candidate_id].params
            if candidate_id in seen:
                self.mark_pending(params)
            seen.add(candidate_id)
            self.learn(params, result)

    def proposable(self, params: Params) -> bool:
        """Return whether the configuration may be proposed as a new one."""
        return self._space.key(params) not in self.ledger.proposed()

    def best(self) -> Standing | None:
        """Return the best configuration by the strategy's criterion, or None while none was feasible. With objectives it is on the
        front."""
        chosen = self.strategy.winner(self.ledger)
        if chosen is None or chosen.fitness is None:
            return None
        front = self.front()
        on_it = not front or any(chosen.params == standing.params for standing in front)
        return chosen if on_it else front[0]

    def front(self) -> list[Standing]:
        """Return the feasible configurations that no other one beats in every objective, the best fitness first, or an empty list without
        objectives."""
        return selection.front(self.ledger.standings(), self._objectives) if self._objectives else []

    def leads_by_one_evaluation(self) -> bool:
        """Return whether the best has a rival and only one evaluation of its own."""
        best = self.best()
        return best is not None and best.n_evaluations == 1 and len(self.ledger.standings()) > 1
