"""Compute how many evaluations Tune wants from a search.

Tune calls `set_search_properties` only with a `param_space`, so a searcher with its own space reads the length from its caller (see
`compat.py`).
"""

from __future__ import annotations

import sys

UNLIMITED = sys.maxsize
"""The value that Tune replaces `num_samples=-1` by."""


def wanted_evaluations(num_samples: int | None, time_budget_s: float | None) -> int | None:
    """Return how many evaluations a search should plan, or None for its own number.

    Args:
        num_samples: Tune's setting. -1 (or `UNLIMITED`) means as many as fit into the time budget.
        time_budget_s: Tune's setting. Without it `num_samples=-1` would never end.
    """
    if not num_samples:
        return None
    unlimited = num_samples < 0 or num_samples >= UNLIMITED
    if unlimited:
        return None if time_budget_s is None else UNLIMITED
    return num_samples
