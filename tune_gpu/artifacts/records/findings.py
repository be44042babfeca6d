"""What a comparison says of each metric."""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.artifacts.records.base import Record


@dataclass(frozen=True, kw_only=True)
class EffectRecord(Record):
    """The difference of a metric between two arms, in the unit of the finding."""

    estimate: float
    low: float | None
    high: float | None
    """The interval; None if there are too few rounds for one."""
    ours: float
    theirs: float
    n_rounds: int = 0
    n_pairs: int = 0
    confidence: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FindingRecord(Record):
    """The verdict on one metric."""

    metric: str
    verdict: str
    """`better`, `worse` or `no difference shown`."""
    unit: str
    higher_is_better: bool
    effect: EffectRecord | None
    """None if the metric was not measured in both arms."""
    tolerance: float
    within_tolerance: bool = False
