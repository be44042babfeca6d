"""Figures of the memory benchmark by group: each file of logged starts, and each era of vLLM."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.services.vllm.memory.engine_rules import version_number

FIRM_FIT, NOT_STARTED = "fits", "does_not_fit"
ERAS = (("before 0.8", (0, 0, 0)), ("0.8 to 0.19", (0, 8, 0)), ("0.20 and later", (0, 20, 0)))
"""Names, and the first version of each."""


def era_of(case: Mapping[str, Any]) -> str:
    """Return the era of the version that a case was read with."""
    version = version_number(str(case["engine"])) or (0, 0, 0)
    return next(name for name, first in reversed(ERAS) if version >= first)


def percentile(values: Sequence[float], rank: float) -> float:
    """Return a percentile of sorted values, between neighbours in proportion."""
    place = rank * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def figures(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of some cases: verdicts, blind errors, and how often and how wide the range was."""
    right = [case["verdict_right"] for case in cases if case["verdict_right"] is not None]
    blind = sorted(case["abs_error_blind"] for case in cases if case["abs_error_blind"] is not None)
    held, widths = [], []
    for case in cases:
        low, high = case["predicted"].get("kv_cache_tokens_range") or (None, None)
        truth = case["logged"]["kv_cache_tokens"]
        if low is not None and truth:
            held.append(low <= truth <= high)
            widths.append((high - low) / truth)
    return {
        "cases": len(cases), "verdicts": len(right), "verdicts_right": sum(right), "blind": len(blind),
        "median": statistics.median(blind) if blind else None, "p90": percentile(blind, 0.9) if blind else None,
        "ranges": len(held), "ranges_held": sum(held), "median_width": statistics.median(widths) if widths else None,
        "not_modelled": sum(case["predicted"]["verdict"] == "not_modelled" for case in cases),
        "firm_fits_that_failed": [
            case["id"] for case in cases if case["predicted"]["certainty"] == FIRM_FIT and case["logged"]["verdict"] == NOT_STARTED
        ],
    }  # fmt: skip


def groups_of(by_file: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each file, of each era, and of each era within each file if there are several files."""
    cases = [case for rows in by_file.values() for case in rows]
    found = {name: figures(rows) for name, rows in by_file.items()}
    for where, rows in {"all": cases, **(by_file if len(by_file) > 1 else {})}.items():
        for era, _ in ERAS:
            if of_era := [case for case in rows if era_of(case) == era]:
                found[f"{where}, {era}"] = figures(of_era)
    return found | {"all": figures(cases)}


def table_of(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures as lines of text."""
    lines = [f"{'group':30} {'cases':>5} {'verdicts':>9} {'blind':>5} {'median':>8} {'p90':>8} {'range held':>11} {'width':>8} {'not mod.':>8}  firm fits that failed"]
    for name, its in groups.items():
        shares = {key: "-" if its[key] is None else f"{100 * its[key]:.1f} %" for key in ("median", "p90", "median_width")}
        right, held = f"{its['verdicts_right']}/{its['verdicts']}", f"{its['ranges_held']}/{its['ranges']}"
        lines.append(
            f"{name:30} {its['cases']:5} {right:>9} {its['blind']:5} {shares['median']:>8} {shares['p90']:>8} {held:>11} {shares['median_width']:>8} "
            f"{its['not_modelled']:8}  {' '.join(its['firm_fits_that_failed']) or '-'}"
        )
    return lines
