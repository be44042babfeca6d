"""An A/B comparison: `comparison.json`, `confirmation.json`, and the parts of it that summaries and winner files hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.findings import FindingRecord


@dataclass(frozen=True, kw_only=True)
class ArmRecord(Record):
    """One of the compared configurations, and how it was measured."""

    params: dict[str, Any]
    n_deployments: int
    n_turns: int = 0
    n_failed_turns: int = 0
    n_failed_deployments: int = 0
    oom_events: int = 0


@dataclass(frozen=True, kw_only=True)
class ComparisonExcerpt(Record):
    """What a summary and a winner file keep of a comparison."""

    sentence: str
    findings: tuple[FindingRecord, ...] = ()
    baseline: dict[str, Any] = field(default_factory=dict)
    n_rounds: int = 0
    n_turns: int = 0
    ended_at: str = ""


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
    """Of our arm against theirs."""
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
    """What to do after this comparison; None where it is not with what runs."""

    def contradiction(self) -> str | None:
        """Return which fields contradict one another, or None."""
        missing = [name for name in (self.ours, self.theirs) if name not in self.arms]
        return f"the arm {missing[0]!r} is missing" if missing else None

    @property
    def our_arm(self) -> ArmRecord:
        """Return the arm that the findings speak for."""
        return self.arms[self.ours]

    @property
    def their_arm(self) -> ArmRecord:
        """Return the arm that it is compared with."""
        return self.arms[self.theirs]

    def finding(self, metric: str) -> FindingRecord | None:
        """Return the finding of a metric, or None if it was not compared."""
        return next((finding for finding in self.findings if finding.metric == metric), None)

    def summary(self) -> ConfirmationSummary:
        """Return what a summary and a winner file keep of it."""
        excerpt = ComparisonExcerpt(
            sentence=self.sentence, findings=self.findings, baseline=self.their_arm.params, n_rounds=self.n_rounds, n_turns=self.our_arm.n_turns,
            ended_at=self.ended_at,
        )  # fmt: skip
        return ConfirmationSummary(confirmed=self.confirmed, confirmed_why=self.confirmed_why, confirmation=excerpt)
