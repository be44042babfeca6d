"""One searcher on one landscape: the true best by number of evaluations, the winner that it names, and its own time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.peers import Params, make


@dataclass(frozen=True)
class Run:
    """Costs are true ones, as ratios to the optimum."""

    best: tuple[float, ...]
    """After 1, 2 … evaluations, the best that was proposed."""
    winner: float
    """The configuration that the searcher names in the end."""
    ms_per_proposal: float
    """The searcher's own processor time: ask and tell (of the wall clock, whatever else the machine does would count)."""
    repeats: int
    """Evaluations of a configuration that had been evaluated before."""


def replay(landscape: Landscape, searcher: str, budget: int, batch: int, noise: float, seed: int) -> Run:
    """Up to `batch` candidates are evaluated side by side; `noise` is the standard deviation of a factor around 1."""
    rng = np.random.default_rng([seed, 77])
    began = time.process_time()
    agent = make(searcher, landscape, budget, batch, seed)
    spent = time.process_time() - began
    best, repeats = math.inf, 0
    curve: list[float] = []
    seen: set[tuple[Any, ...]] = set()
    while len(curve) < budget:
        began = time.process_time()
        asked: list[Params] = []
        while len(asked) < min(batch, budget - len(curve)) and (params := agent.ask()) is not None:
            asked.append(params)
        spent += time.process_time() - began
        if not asked:
            break
        for params in asked:
            cost = landscape.cost(params)
            key = tuple(params.values())
            repeats += key in seen
            seen.add(key)
            if not math.isnan(cost):
                best = min(best, cost)
            curve.append(best / landscape.optimum)
            began = time.process_time()
            agent.tell(params, cost * max(0.05, 1.0 + noise * rng.normal()) if noise else cost)
            spent += time.process_time() - began
    n_asked = len(curve)
    curve += [best / landscape.optimum] * (budget - n_asked)  # the space is exhausted
    winner = agent.winner()
    named = landscape.cost(winner) / landscape.optimum if winner is not None else math.inf
    return Run(tuple(curve), named, 1000.0 * spent / max(1, n_asked), repeats)
