"""An A/B comparison: `comparison.json`, `confirmation.json`, and its parts in summaries and winner files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.findings import FindingRecord


class ArmSource(StrEnum):
    """Where the parameters of an arm come from."""

    WINNER = "the run's winner"
    RIVAL = "one of the run's best"
    BASELINE = "the run's baseline"
    GIVEN_BASELINE = "--baseline"
    AGAINST = "--against"


def arm_label(source: ArmSource | None, outside: Mapping[str, Any]) -> str:
    """Return the note beside an arm's name: `from --baseline, outside the space: share=0.33`; "" for an arm of the run itself."""
    given = f"from {source}" if source in (ArmSource.GIVEN_BASELINE, ArmSource.AGAINST) else ""
    beyond = f"outside the space: {', '.join(f'{name}={value}' for name, value in outside.items())}" if outside else ""
    return ", ".join(part for part in (given, beyond) if part)


@dataclass(frozen=True, kw_only=True)
class ArmRecord(Record):
    """One of the compared configurations, and how it was measured."""

    params: dict[str, Any]
    n_deployments: int
    n_turns: int = 0
    n_failed_turns: int = 0
    n_failed_deployments: int = 0
    oom_events: int = 0
    source: ArmSource | None = field(default=None, metadata=OPTIONAL)
    """None in a comparison by an older program, which did not record it."""
    outside: dict[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    """Parameters whose values are outside the run's space."""
    ended_early: dict[str, int] = field(default_factory=dict, metadata=OPTIONAL)
    """LLM -> turns whose answer its model ended before the requested length."""

    @property
    def label(self) -> str:
        """Return the note beside the arm's name; "" for an arm of the run itself."""
        return arm_label(self.source, self.outside)


@dataclass(frozen=True, kw_only=True)
class ComparisonExcerpt(Record):
    """The part of a comparison that a summary and a winner file contain."""

    sentence: str
    findings: tuple[FindingRecord, ...] = ()
    baseline: dict[str, Any] = field(default_factory=dict)
    n_rounds: int = 0
    n_turns: int = 0
    ended_at: str = ""
    file: str = field(default="", metadata=OPTIONAL)
    """Name of the comparison's file in the run's folder."""


@dataclass(frozen=True, kw_only=True)
class ConfirmationSummary(Record):
    """Whether a winner is confirmed against the baseline, and why or why not."""

    confirmed: bool
    confirmed_why: str
    confirmation: ComparisonExcerpt | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """The result of one comparison."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    experiment: str = ""
    device: DeviceRecord
    memory_in_use_at_start_mib: float | None = None
    ended_at: str
    ours: str
    theirs: str
    """Names of arms."""
    arms: dict[str, ArmRecord]
    sentence: str
    findings: tuple[FindingRecord, ...]
    """One finding per metric, for our arm against theirs."""
    n_rounds: int = 0
    ended: str = ""
    """A value of `ComparisonEnd`, or one that a newer program added."""
    ended_why: str = ""
    confidence: float
    interval_confidence: float
    wall_s: float = 0.0
    seed: int = 0
    confirmed: bool
    confirmed_why: str
    rivals: dict[str, FindingRecord] | None = field(default=None, metadata=OPTIONAL)
    """In a run's own confirmation: the winner against each rival, in the decisive metric."""
    decision: Decision | None = field(default=None, metadata=OPTIONAL)
    """What to do after this comparison; None if it is not with the baseline."""
    traffic: str | None = field(default=None, metadata=OPTIONAL)
    """Hash of the traffic under which it was made, which is of the conversations that the search did not use; None in old artifacts."""

    def contradiction(self) -> str | None:
        """Return which fields contradict one another, or None."""
        missing = [name for name in (self.ours, self.theirs) if name not in self.arms]
        return f"the arm {missing[0]!r} is missing" if missing else None

    @property
    def our_arm(self) -> ArmRecord:
        """Return the arm that the findings are about."""
        return self.arms[self.ours]

    @property
    def their_arm(self) -> ArmRecord:
        """Return the arm that ours is compared with."""
        return self.arms[self.theirs]

    def finding(self, metric: str) -> FindingRecord | None:
        """Return the finding of a metric, or None if it was not compared."""
        return next((finding for finding in self.findings if finding.metric == metric), None)

    def summary(self, file: str) -> ConfirmationSummary:
        """Return the part for a summary and a winner file; `file` is the comparison's name in the run's folder."""
        excerpt = ComparisonExcerpt(
            sentence=self.sentence, findings=self.findings, baseline=self.their_arm.params, n_rounds=self.n_rounds, n_turns=self.our_arm.n_turns,
            ended_at=self.ended_at, file=file,
        )  # fmt: skip
        return ConfirmationSummary(confirmed=self.confirmed, confirmed_why=self.confirmed_why, confirmation=excerpt)
