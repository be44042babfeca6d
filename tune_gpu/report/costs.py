"""Where the seconds of a run went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.common.default_pair import LLM, STT


@dataclass(frozen=True)
class Cost:
    """One part of the run's time."""

    part: str
    seconds: float
    share: float


def costs_of(lines: Sequence[EvaluationRecord], summary: RunSummary | None, confirmation: Comparison | None) -> list[Cost]:
    """Return where the seconds of the run went; the rest is Ray's and ours."""
    parts: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        for part, seconds in cost_parts(line).items():
            parts[part] += seconds
    wall = float(summary.costs.wall_s) if summary else sum(parts.values())
    if summary and summary.costs.anchors_s:
        parts["deploying the baseline again"] += summary.costs.anchors_s
    confirming = min(float(confirmation.wall_s) if confirmation else 0.0, wall - sum(parts.values()))
    if confirming > 0:
        parts["confirming the winner"] += confirming
    rest = wall - sum(parts.values())
    if rest > 0:
        parts["Ray, and between evaluations"] += rest
    return [Cost(part, seconds, seconds / wall if wall else 0.0) for part, seconds in sorted(parts.items(), key=lambda item: -item[1]) if seconds > 0]


PARTS = ("measured under load", "starting engines", f"starting {STT.title}", "waiting for stable memory", "importing the engine", "warming up", "stopping")
_START_NAMES = {LLM.name: PARTS[1], STT.name: PARTS[2], "memory_stable": PARTS[3], "imports": PARTS[4], "engine_stop": PARTS[6]}


def cost_parts(line: EvaluationRecord) -> dict[str, float]:
    """Return the seconds of one evaluation by their use."""
    spent = line.duration_s
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for name, seconds in (spent.start_by_part or {LLM.name: spent.start}).items():
        label = _START_NAMES.get(name, f"starting: {name}")
        parts[label] = parts.get(label, 0.0) + seconds
    for label, seconds in ((PARTS[0], spent.load), (PARTS[5], spent.warm), (PARTS[6], spent.stop)):
        parts[label] += seconds
    return {label: seconds for label, seconds in parts.items() if seconds > 0}
