"""How long Tune wants a search to be.

Tune tells a searcher that has a space of its own nothing: `set_search_properties` is called for a `param_space` only. What makes the trials
knows it, and is among those that ask for a suggestion. Nor is a searcher told whether a `ConcurrencyLimiter` waits for whole batches.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import TypeVar

_Caller = TypeVar("_Caller")
_CALLERS = 12
"""A few wrappers (a `ConcurrencyLimiter`, a `Repeater`) may stand between the searcher and what makes the trials."""
UNLIMITED = sys.maxsize
"""What Tune makes of `num_samples=-1`."""


def among_callers(kind: type[_Caller]) -> _Caller | None:
    """Return what of this kind is calling, directly or through others; null where a searcher is driven by hand."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_CALLERS):
        if frame is None:
            return None
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            return caller
        frame = frame.f_back
    return None


def wanted_evaluations(num_samples: int | None, time_budget_s: float | None) -> int | None:
    """Return how many evaluations a search is for; null: as many as it has by itself.

    Args:
        num_samples: Tune's; -1 or what Tune makes of it: as many as there is time for.
        time_budget_s: Tune's; without it `num_samples=-1` would never end.
    """
    if not num_samples:
        return None
    unlimited = num_samples < 0 or num_samples >= UNLIMITED
    if unlimited:
        return None if time_budget_s is None else UNLIMITED
    return num_samples
