"""Choose the survivors of a tournament, by rank, or in Pareto mode by front and crowding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.evaluations import Standing
from tune_gpu.search.pareto import first_front, matrix, select


def survivors(competitors: Sequence[Standing], places: int, directions: Mapping[str, str]) -> list[int]:
    """Return the indices of the best competitors, best first.

    Args:
        competitors: the standing of each. Equal ones keep their order.
        places: number of survivors.
        directions: in Pareto mode, `max` or `min` for each objective; else empty.
    """
    order = sorted(range(len(competitors)), key=lambda i: competitors[i].rank)
    if directions:
        feasible = [i for i in order if competitors[i].fitness is not None]
        chosen = [feasible[i] for i in select(_values([competitors[i] for i in feasible], directions), places)]
        order = chosen + [i for i in order if competitors[i].fitness is None]
    return order[:places]


def front(standings: Sequence[Standing], directions: Mapping[str, str]) -> list[Standing]:
    """Return the feasible configurations that no other one beats in every objective, in the given order, or an empty list without
    objectives."""
    feasible = [standing for standing in standings if standing.fitness is not None]
    if not directions or not feasible:
        return []
    return [feasible[i] for i in first_front(_values(feasible, directions))]


def _values(standings: Sequence[Standing], directions: Mapping[str, str]) -> NDArray[np.float64]:
    return matrix([[standing.objectives[name] for name in directions] for standing in standings], list(directions.values()))
