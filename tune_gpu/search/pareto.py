"""Multi-objective selection: the non-dominated configurations, and which of them to keep (NSGA-II, Deb et al. 2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_gpu.common.errors import UserError

Array = NDArray[np.float64]
_AUGMENTED = 0.05
"""Weight of the sum of all objectives relative to the worst of them."""


def matrix(rows: Sequence[Sequence[float]], directions: Sequence[str]) -> Array:
    """Return the objectives in an array of shape (candidates, objectives), with signs so that higher is better.

    Args:
        rows: the objectives of each candidate.
        directions: `max` or `min` for each objective.

    Raises:
        UserError: a direction is invalid, a row has another length, or a value is not finite.
    """
    for direction in directions:
        if direction not in ("max", "min"):
            raise UserError(f"objective direction {direction!r}: not allowed. Use one of max, min.")
    for index, row in enumerate(rows):
        if len(row) != len(directions):
            raise UserError(f"candidate {index} has {len(row)} objectives for {len(directions)} directions. Give one for each.")
        if not all(math.isfinite(value) for value in row):
            raise UserError(f"candidate {index} has objectives {list(row)}: not finite. Give finite numbers.")
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in directions])
    return np.asarray(rows, dtype=float).reshape(len(rows), len(directions)) * signs


def dominates(values: Array) -> NDArray[np.bool_]:
    """Return a matrix whose entry [i, j] is True if i is no worse than j in any objective and better in at least one."""
    at_least = (values[:, None, :] >= values[None, :, :]).all(axis=2)
    above = (values[:, None, :] > values[None, :, :]).any(axis=2)
    return np.asarray(at_least & above)


def fronts(values: Array) -> list[list[int]]:
    """Return indices by rank: nothing dominates the first front, only the first front dominates the second, and so on."""
    beats = dominates(values)
    rivals = beats.sum(axis=0)
    left = np.ones(len(values), dtype=bool)
    ranked: list[list[int]] = []
    while left.any():
        front = np.flatnonzero(left & (rivals == 0))
        ranked.append(front.tolist())
        left[front] = False
        rivals = rivals - beats[front].sum(axis=0)
    return ranked


def first_front(values: Array) -> list[int]:
    """Return the first of `fronts` without computing the others. This is fast even for thousands of candidates."""
    kept: list[int] = []
    rows = np.empty_like(values)
    for i in np.lexsort(-values.T[::-1]):  # a candidate comes after all that dominate it
        above = rows[: len(kept)]
        if not ((above >= values[i]).all(axis=1) & (above > values[i]).any(axis=1)).any():
            rows[len(kept)] = values[i]
            kept.append(int(i))
    return sorted(kept)


def crowding(values: Array) -> Array:
    """Return the crowding distance of each candidate in a front: the distance of its two neighbours, summed over the objectives (each
    divided by its range). It is infinite at the ends."""
    count = len(values)
    distance = np.zeros(count)
    if count == 0:
        return distance
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = float(column[order[-1]] - column[order[0]])
        distance[order[0]] = distance[order[-1]] = math.inf
        if spread > 0.0 and count > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def select(values: Array, places: int) -> list[int]:
    """Return the indices of the `places` best, by front. Within the front that does not fit completely, choose by crowding, the largest
    distance first."""
    chosen: list[int] = []
    for front in fronts(values):
        if len(chosen) >= places:
            break
        distance = crowding(values[front])
        chosen += [front[i] for i in np.argsort(-distance, kind="stable")][: places - len(chosen)]
    return chosen


def along(values: Array, weights: Array) -> Array:
    """Return one score per candidate, higher is better: how near it comes to the best of all objectives at once, each divided by its range
    and weighted. Every point of the front is the best for some weights (the augmented Chebyshev norm of ParEGO, Knowles 2006)."""
    span = np.ptp(values, axis=0)
    missing = weights * (values.max(axis=0) - values) / np.where(span > 0.0, span, 1.0)
    return np.asarray(-missing.max(axis=1) - _AUGMENTED * missing.sum(axis=1))
