"""How sure a ramp is of its capacity: its turns are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_RESAMPLES = 400


def resampled(
    steps: Sequence[Array],
    loads: Sequence[float],
    percentile: int,
    capacity: Callable[[Sequence[float]], float],
    rng: np.random.Generator,
    also: Sequence[Array] = (),
) -> Array | None:
    """Return capacities of ramps that are made again from the turns of this one; null where no group of turns has two.

    A step of few turns says little about its own spread, so all steps share theirs: a turn is its step's geometric mean times a residual that is
    drawn from those of all turns, widened by the degrees of freedom that the means have taken (a smooth bootstrap would need a bandwidth; Efron and
    Tibshirani 1993, 9.4).

    Args:
        steps: for 1, 2, 3 … sessions a row for each answered turn: its latencies over their targets.
        loads: the load of each step; one that is infinite stays so.
        percentile: of the latencies.
        capacity: the capacity for the loads of 1, 2, 3 … sessions, of which only the last may be above 1.
        rng: for the draws.
        also: groups of turns of other load, for the spread alone: a short step has one turn or two.
    """
    logs = [np.log(np.maximum(step, 1e-9)) for step in steps]
    groups = [log for log in (*logs, *(np.log(np.maximum(group, 1e-9)) for group in also)) if len(log)]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom < 1:
        return None
    residuals = np.concatenate([group - group.mean(axis=0) for group in groups])
    residuals = residuals * np.sqrt(len(residuals) / freedom)
    drawn = np.empty((_RESAMPLES, len(loads)))
    for at, (log, load) in enumerate(zip(logs, loads, strict=True)):
        if not len(log) or not np.isfinite(load):
            drawn[:, at] = np.inf
            continue
        turns = np.exp(log.mean(axis=0) + residuals[rng.integers(len(residuals), size=(_RESAMPLES, len(log)))])
        drawn[:, at] = np.percentile(turns, percentile, axis=1).max(axis=1)
    return np.array([capacity(until_failed(row.tolist())) for row in drawn])


def until_failed(loads: Sequence[float]) -> list[float]:
    """Return the loads up to the first above 1, after which a ramp ends."""
    failed = next((at for at, load in enumerate(loads) if load > 1.0), len(loads) - 1)
    return [float(load) for load in loads[: failed + 1]]
