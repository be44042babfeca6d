"""Read the report of a trial, for results as they arrive and for those stored by a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from tune_gpu.search.evaluations import Result

_VAST = 1e150
"""Largest number that can be squared."""


def read_report(report: Mapping[str, Any], metric: str, mode: str | None, objectives: Collection[str] = ()) -> Result:
    """Read a report, which may come from any trainable. In the result a higher fitness is better, whatever the mode.

    Args:
        report: the metric, and optionally `status`, `violation`, `transient`, `stderr`, `n_windows` and the objectives.
        metric: the key to optimise.
        mode: `max` or `min`.
        objectives: the keys of Pareto mode. A report that lacks one of them is infeasible, because it cannot be compared with the others.
    """
    value, status = number(report.get(metric)), report.get("status")
    found = {name: measured for name in objectives if (measured := number(report.get(name))) is not None}
    if value is not None and len(found) < len(objectives):
        value, status = None, status if status in ("infeasible", "failed") else "ok"
    given = number(report.get("n_windows"))
    windows = 1 if given is None else int(given)
    if value is None or status in ("infeasible", "failed"):
        # `ok` without a number: the trial ran, but did not report the metric.
        missed = status if status in ("infeasible", "failed") else "infeasible" if status == "ok" else "failed"
        violation = number(report.get("violation")) or 0.0
        return Result(missed, n_windows=max(0, windows), violation=violation, transient=bool(report.get("transient")))
    stderr = number(report.get("stderr"))
    stderr = stderr if stderr is not None and 0.0 <= stderr < _VAST else None
    return Result("ok", -value if mode == "min" else value, stderr=stderr, n_windows=max(1, windows), objectives=found)


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else that a trial may report."""
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
