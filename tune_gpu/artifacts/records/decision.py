"""What to do about a run's winner: the field `decision` of a summary and of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tune_gpu.artifacts.records.base import Record
from tune_gpu.artifacts.records.findings import FindingRecord
from tune_gpu.common.wording import duration_text


class DecisionVerdict(StrEnum):
    """The three possible decisions."""

    DEPLOY = "deploy"
    KEEP = "keep"
    MEASURE_LONGER = "measure longer"

    @property
    def advice(self) -> str:
        """Return the verdict as advice to the user."""
        return {DecisionVerdict.DEPLOY: "deploy it", DecisionVerdict.KEEP: "keep the current configuration", DecisionVerdict.MEASURE_LONGER: "measure longer"}[self]


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """A decision with its reasons."""

    verdict: DecisionVerdict
    reason: str
    """One sentence."""
    command: str | None = None
    """What to run next; None if there is nothing to run."""
    about_s: float | None = None
    """How long that command takes, in seconds; None if it is not known or not long."""
    rests_on: str = ""
    """The evidence: a file of the run, or "the search alone"."""
    better: tuple[FindingRecord, ...] = field(default=())
    """Metrics that are shown to be better than the baseline's."""
    worse: tuple[FindingRecord, ...] = field(default=())
    """Metrics that are shown to be worse."""
    same: tuple[FindingRecord, ...] = field(default=())
    """Metrics whose difference is shown to be smaller than their tolerance."""
    undecided: tuple[FindingRecord, ...] = field(default=())
    """Metrics for which nothing is shown."""

    @property
    def sentence(self) -> str:
        """Return the decision in one sentence."""
        return f"{self.verdict.advice}: {self.reason}"

    @property
    def next_step(self) -> str | None:
        """Return the command that comes next and how long it takes, or None if there is nothing to run."""
        time = "" if self.about_s is None else f" (about {duration_text(self.about_s)})"
        return f"{self.command}{time}" if self.command else None

    @property
    def groups(self) -> tuple[tuple[str, tuple[FindingRecord, ...]], ...]:
        """Return the metrics grouped by what is shown about them, without empty groups."""
        named = (("better", self.better), ("worse", self.worse), ("no difference that matters", self.same), ("not known", self.undecided))
        return tuple((name, findings) for name, findings in named if findings)

    @property
    def group_texts(self) -> tuple[tuple[str, str], ...]:
        """Return the groups in words. Metrics of which the same is known stand together."""
        return tuple((name, _group_text(findings)) for name, findings in self.groups)

    @property
    def basis(self) -> str:
        """Return what it rests on, and how to read the figures of its metrics."""
        confidences = [each.effect.confidence for _, findings in self.groups for each in findings if each.effect is not None]
        how = f" (in brackets: the {100 * max(confidences):.4g} % interval, and how much was measured)" if any(confidences) else ""
        return f"{self.rests_on}{how}"


def _group_text(findings: Sequence[FindingRecord]) -> str:
    """Return the metrics with their figures, then those without: they share a clause (`voice turn and first token at p95 (7 turns: too few …)`)."""
    with_figures = [each.text for each in findings if each.effect is not None and each.carried]
    without: dict[str, list[str]] = {}
    for each in findings:
        if each.effect is None or not each.carried:
            label, _, at = each.label.partition(" at ")
            without.setdefault(f"{at and f' at {at}'} {each.figures}", []).append(label)
    shared = [_listed(labels) + (text if len(labels) == 1 else text.replace("was not", "were not")) for text, labels in without.items()]
    return "; ".join([*with_figures, *shared])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
