"""Many objectives: which configurations no other one beats, and which of those to keep (NSGA-II, Deb et al. 2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_gpu.common.errors import UserError

Array = NDArray[np.float64]
_AUGMENTED = 0.05
"""What the sum of all objectives counts beside the worst of them."""


def matrix(rows: Sequence[Sequence[float]], directions: Sequence[str]) -> Array:
    """(candidates, objectives), turned so that higher is better everywhere.

    Args:
        rows: the objectives of each candidate.
        directions: `max` or `min` for each objective.

    Raises:
        UserError: another direction, a row of another length, or a value that is not finite.
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
    """Return a matrix whose entry [i, j] says that i is nowhere worse than j and somewhere better."""
    at_least = (values[:, None, :] >= values[None, :, :]).all(axis=2)
    above = (values[:, None, :] > values[None, :, :]).any(axis=2)
    return np.asarray(at_least & above)


def fronts(values: Array) -> list[list[int]]:
    """Return indices by rank: the first front is dominated by nobody, the second only by the first, and so on."""
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
    """Return the first of `fronts` without computing the others, which is fast even for thousands."""
    kept: list[int] = []
    rows = np.empty_like(values)
    for i in np.lexsort(-values.T[::-1]):  # whoever beats another stands before it
        above = rows[: len(kept)]
        if not ((above >= values[i]).all(axis=1) & (above > values[i]).any(axis=1)).any():
            rows[len(kept)] = values[i]
            kept.append(int(i))
    return sorted(kept)


def crowding(values: Array) -> Array:
    """Return how far apart a candidate's neighbours in its front stand, summed over the objectives (each divided by its range); the ends:
    infinite."""
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
    """Return the indices of the `places` best: by front, and within the front that does not fit by crowding, the most alone first."""
    chosen: list[int] = []
    for front in fronts(values):
        if len(chosen) >= places:
            break
        distance = crowding(values[front])
        chosen += [front[i] for i in np.argsort(-distance, kind="stable")][: places - len(chosen)]
    return chosen


def along(values: Array, weights: Array) -> Array:
    """Return one number a candidate, the higher the better: how near it comes to the best of every objective at once, each divided by its
    range and weighed. Every point of the front is the best for some weights (the augmented Chebyshev norm of ParEGO, Knowles 2006)."""
    span = np.ptp(values, axis=0)
    missing = weights * (values.max(axis=0) - values) / np.where(span > 0.0, span, 1.0)
    return np.asarray(-missing.max(axis=1) - _AUGMENTED * missing.sum(axis=1))
