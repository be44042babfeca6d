"""Counters of services: numbers that only rise while a service runs, so that the difference of two readings says what happened in between."""

from __future__ import annotations

import math
from collections.abc import Mapping

COUNTER = "_total"
"""The end of a counter's name among the readings of a service (Prometheus' convention)."""


def rises(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each counter rose. One that is missing at an end, or fell because its service started anew, is left out."""
    return {name: after[name] - value for name, value in before.items() if after.get(name, -math.inf) >= value}


def total_of(windows: list[Mapping[str, Mapping[str, float]]], service: str, counter: str) -> float | None:
    """Return the rise of a service's counter over several windows, or None if one of them does not have it."""
    found = [window.get(service, {}).get(counter) for window in windows]
    known = [rise for rise in found if rise is not None]
    return math.fsum(known) if known and len(known) == len(found) else None
