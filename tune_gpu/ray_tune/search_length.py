"""How many evaluations Tune wants of a search.

Tune calls `set_search_properties` for a `param_space` only, so a searcher with a space of its own asks whoever makes the trials (see `compat.py`).
"""

from __future__ import annotations

import sys

UNLIMITED = sys.maxsize
"""What Tune makes of `num_samples=-1`."""


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
