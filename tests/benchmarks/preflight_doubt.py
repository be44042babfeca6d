"""How often the range of a prediction holds on starts that its width was not fitted to.

The width of a range is a number of standard deviations (`budget.DOUBT_FACTOR`). Each group of starts (a model family, or a source of logs) is left
out in turn; the number that holds in nine of ten of all other starts is applied to the group. So no start is judged by a width that it
determined.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WANTED = 0.9


@dataclass(frozen=True)
class Miss:
    """One start's error in units of the predicted half range."""

    model: str
    source: str
    error: float
    half_range: float
    """As a share of the predicted tokens."""


@dataclass(frozen=True)
class CrossValidated:
    """How the range did on groups that were left out."""

    groups: int
    held: int
    starts: int
    scale: float
    """Median factor by which the other groups would change the present width."""
    half_range: float
    """Median, as a share of the predicted tokens."""


def misses(cases: Sequence[Mapping[str, Any]]) -> list[Miss]:
    """Return the misses of all starts with predicted and logged tokens."""
    found = []
    for case in cases:
        prediction, truth = case["predicted"], case["logged"]["kv_cache_tokens"]
        if case["abs_error_blind"] is None or not prediction["kv_cache_tokens"]:
            continue
        half = prediction["kv_cache_tokens_range"][1] - prediction["kv_cache_tokens"]
        found.append(Miss(str(case["model"]), str(case.get("source") or case["id"]), abs(truth - prediction["kv_cache_tokens"]) / max(half, 1), half / prediction["kv_cache_tokens"]))
    return found


def family_of(miss: Miss) -> str:
    """Return the name of a model's family: the first word of its name, with the digits that follow."""
    found = re.match(r"(?:deepseek-r1-distill-|meta-|unsloth/)?[a-z]+-?\d*", miss.model.lower().rpartition("/")[2].removeprefix("meta-"))
    return found[0] if found else miss.model


def source_of(miss: Miss) -> str:
    """Return the log that a start was found in."""
    return miss.source


def cross_validate(found: Sequence[Miss], group_of: Callable[[Miss], str]) -> CrossValidated | None:
    """Return how the range did, or None for fewer than two groups."""
    groups = {group_of(miss) for miss in found}
    if len(groups) < 2:
        return None
    held, halves, scales = 0, [], []
    for group in groups:
        others = sorted(miss.error for miss in found if group_of(miss) != group)
        scale = others[min(len(others), math.ceil(WANTED * (len(others) + 1))) - 1]
        scales.append(scale)
        for miss in found:
            if group_of(miss) == group:
                held += miss.error <= scale
                halves.append(miss.half_range * scale)
    return CrossValidated(len(groups), held, len(found), statistics.median(scales), statistics.median(halves))


def lines_of(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is printed: the range as it is, and with each family and each source left out."""
    found = misses(cases)
    if not found:
        return []
    now = sum(miss.error <= 1 for miss in found)
    lines = [f"range as it is: held in {now} of {len(found)} starts, half its width {100 * statistics.median(miss.half_range for miss in found):.1f} % (median)"]
    for name, group_of in (("model family", family_of), ("source", source_of)):
        if (done := cross_validate(found, group_of)) is not None:
            lines.append(
                f"each {name} left out ({done.groups}): held in {done.held} of {done.starts}, half its width {100 * done.half_range:.1f} %, "
                f"{done.scale:.2f} times the present width"
            )
    return lines
