"""R-Zero, as the benchmark drives it: fitness is the negative logarithm of the cost."""

from __future__ import annotations

import math
from typing import Any

from tests.benchmarks.searchers.landscapes import Landscape
from tune_gpu.config import SearchSettings
from tune_gpu.space import SearchSpace
from tune_gpu.tournament import Result, Tournament


class Ours:
    """One tournament. Re-measurements count as evaluations, like every other proposal."""

    def __init__(self, algorithm: str, landscape: Landscape, seed: int, budget: int) -> None:
        space = SearchSpace.from_specs(landscape.specs, landscape.allowed)
        self._tournament = Tournament(space, SearchSettings(algorithm=algorithm, seed=seed, generations=budget))
        self._asked: list[tuple[str, dict[str, Any]]] = []
        self._last: dict[str, Any] = {}

    def ask(self) -> dict[str, Any] | None:
        """Null while a generation is awaited, and when all is measured."""
        candidate = self._tournament.ask()
        if candidate is None:
            return None
        self._asked.append((candidate.candidate_id, candidate.params))
        return candidate.params

    def tell(self, params: dict[str, Any], cost: float | None) -> None:
        index = next(i for i, (_, asked) in enumerate(self._asked) if asked == params)
        candidate_id, _ = self._asked.pop(index)
        result = Result("ok", -math.log(cost), n_windows=1) if cost is not None else Result("failed", violation=1.0)
        self._tournament.tell(candidate_id, result)

    def best(self) -> dict[str, Any] | None:
        best = self._tournament.best()
        return best.params if best else None
