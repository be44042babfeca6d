"""The winner of an experiment's latest run: `winners/<experiment>.json`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.comparison import ComparisonExcerpt, ConfirmationSummary
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.summary import StandingRecord


@dataclass(frozen=True, kw_only=True)
class WinnerEvidence(Record):
    """The evidence of the search for its winner."""

    evaluations: tuple[str, ...] = ()
    n_windows: int = 0
    ties: tuple[dict[str, Any], ...] = ()
    baseline: StandingRecord | None = None
    gain_over_baseline: float | None = None


@dataclass(frozen=True, kw_only=True)
class WinnerFile(Record):
    """The winner, whether it is confirmed, and the evidence."""

    schema_version: int = SCHEMA_VERSION
    experiment: str = ""
    run_id: str
    best_params: dict[str, Any]
    best_metrics: dict[str, Any]
    fitness: float | None = None
    fitness_stderr: float | None = None
    confirmed: bool
    confirmed_why: str = ""
    confirmation: ComparisonExcerpt | None = field(default=None, metadata=OPTIONAL)
    evidence: WinnerEvidence = field(default_factory=WinnerEvidence)
    device: DeviceRecord = field(default_factory=DeviceRecord)
    memory_in_use_at_start_mib: float | None = None
    best_metrics_of: str | None = field(default=None, metadata=OPTIONAL)
    """The evaluation that `best_metrics` comes from; None in a file of an older program."""
    decision: Decision | None = field(default=None, metadata=OPTIONAL)
    """What to do about the winner; None in a file of an older program without decisions."""

    def with_confirmation(self, found: ConfirmationSummary, decision: Decision | None = None) -> WinnerFile:
        """Return the file with the verdict of a later comparison."""
        return replace(self, confirmed=found.confirmed, confirmed_why=found.confirmed_why, confirmation=found.confirmation, decision=decision)
