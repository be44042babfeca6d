"""Arrival times of requests."""

from __future__ import annotations

import numpy as np


def poisson_arrivals(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> list[float]:
    """Return the due times of a Poisson process in [0, duration), in seconds and in order (independent exponential gaps). Rate 0 has
    none."""
    if rate_per_s <= 0 or duration_s <= 0:
        return []
    due: list[float] = []
    now = float(rng.exponential(1.0 / rate_per_s))
    while now < duration_s:
        due.append(now)
        now += float(rng.exponential(1.0 / rate_per_s))
    return due
