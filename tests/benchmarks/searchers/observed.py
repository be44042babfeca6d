"""What a peer has measured, and what it has not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks.searchers.landscapes import Landscape

Params = Mapping[str, Any]


class Observed:
    """What was measured: the lowest single cost names the winner, as every one of these libraries does."""

    def __init__(self) -> None:
        self._costs: dict[tuple[Any, ...], float] = {}
        self._best: tuple[float, Params] | None = None
        self.worst: float | None = None

    def add(self, params: Params, cost: float) -> None:
        self._costs[tuple(params.values())] = cost
        if not math.isnan(cost):
            self.worst = cost if self.worst is None else max(self.worst, cost)
            if self._best is None or cost < self._best[0]:
                self._best = (cost, dict(params))

    def cost(self, params: Params) -> float | None:
        return self._costs.get(tuple(params.values()))

    def best(self) -> Params | None:
        return self._best[1] if self._best else None


class Unseen:
    """Random allowed configurations, none twice."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        self._rng, self._landscape = np.random.default_rng(seed), landscape
        self._seen: set[tuple[Any, ...]] = set()
        listed = landscape.configurations
        self._order = iter(self._rng.permutation(len(listed))) if listed is not None else None

    def exclude(self, params: Params) -> None:
        self._seen.add(tuple(params[n] for n in self._landscape.space.names))

    def next(self) -> dict[str, Any] | None:
        names = self._landscape.space.names
        if self._order is None:
            return self._landscape.space.sample(self._rng)
        for index in self._order:
            key = self._landscape.configurations[int(index)]  # type: ignore[index]
            if key not in self._seen:
                self._seen.add(key)
                return dict(zip(names, key, strict=True))
        return None
