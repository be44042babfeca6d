"""The results of a run: `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.exercise import ExerciseRecord
from tune_gpu.common.wording import counted


@dataclass(frozen=True, kw_only=True)
class StandingRecord(Record):
    """A configuration with the combined result of all its evaluations."""

    params: dict[str, Any]
    fitness: float | None
    fitness_stderr: float | None
    """Standard error of the mean, including the differences between deployments; None if it is unknown."""
    n_evaluations: int
    """Number of evaluations by the search, without the baseline's further deployments at the end."""
    n_windows: int
    """Number of windows of these evaluations."""
    evaluations: tuple[str, ...] = ()
    """The ids of its candidates."""
    n_deployments: int | None = field(default=None, metadata=OPTIONAL)
    """Number of measured deployments that the fitness averages, including further ones of the baseline; None in runs of older programs."""
    objectives: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    """Set only on the Pareto front."""
    fitness_interval: tuple[float, ...] | None = field(default=None, metadata=OPTIONAL)
    """95 % confidence interval of the mean."""
    next_deployment: tuple[float, ...] | None = field(default=None, metadata=OPTIONAL)
    """95 % prediction interval of one more deployment."""

    @property
    def samples(self) -> str:
        """Return the sample sizes of the mean fitness: `2 deployments, 6 windows`."""
        windows = counted(self.n_windows, "window")
        if self.n_deployments is None:
            return f"{counted(self.n_evaluations, 'evaluation')}, {windows}"
        deployments, further = counted(self.n_deployments, "deployment"), self.n_deployments - self.n_evaluations
        if further <= 0:
            return f"{deployments}, {windows}"
        return f"{deployments}: {counted(self.n_evaluations, 'evaluation')} with {windows}, and {further} more after the search"


@dataclass(frozen=True, kw_only=True)
class GenerationRecord(Record):
    """A generation: the fitness of each candidate, and which survived."""

    generation: int
    fitness: dict[str, float | None] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Costs(Record):
    """Where the seconds of a run went."""

    wall_s: float = 0.0
    engine_starts: int = 0
    service_starts: int | None = field(default=None, metadata=OPTIONAL)
    """Starts of all services, in a space that names its services."""
    start_s: float = 0.0
    warm_s: float = 0.0
    load_s: float = 0.0
    stop_s: float = 0.0
    setup_s: float = 0.0
    confirm_s: float = 0.0
    anchors_s: float = field(default=0.0, metadata=OPTIONAL)
    """Further deployments of the baseline. The fields by phase (`start_s` to `stop_s`) cover the evaluations only."""
    orchestration_s: float = 0.0
    """The rest: Ray, and the time between evaluations."""
    measuring_share: float | None = None
    """Share of the wall time that was spent under load; None without a wall time."""


@dataclass(frozen=True, kw_only=True)
class RunSummary(Record):
    """The summary of a run."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    run_id: str
    device: str
    ended: str
    """A value of `RunEnd`, or one that a newer program added."""
    counts: dict[str, int]
    """Evaluations by outcome: see `EvaluationRecord.outcome`. In runs of older programs `ok` counts those against a constraint, too."""
    n_evaluations: int
    n_configurations: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Evaluations by kind of failure."""
    best: StandingRecord | None
    baseline: StandingRecord | None
    pareto_front: tuple[StandingRecord, ...] = ()
    ties: tuple[dict[str, Any], ...]
    """Parameters of the best configuration and of those that the measurements cannot distinguish from it; empty if there are none."""
    generations: tuple[GenerationRecord, ...]
    costs: Costs
    warnings: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """Limits of what the measurements show: capacities at the ramp's end, and saturation."""
    exercise: ExerciseRecord | None = field(default=None, metadata=OPTIONAL)
    """Which parameters the traffic did not exercise, and which moved nothing beyond the noise; None in runs of older programs."""
    n_deployments: int | None = field(default=None, metadata=OPTIONAL)
    """Number of launched evaluations and further deployments of the baseline; None in old runs."""
    repeated: str | None = field(default=None, metadata=OPTIONAL)
    """Sentence on the noise between deployments of one configuration, or on why it was not deployed again."""
    between_deployments: float | None = field(default=None, metadata=OPTIONAL)
    """Standard deviation of the fitness between deployments of one configuration, beyond the errors within them."""
    ended_reason: str | None = field(default=None, metadata=OPTIONAL)
    """The failure that all candidates shared, if it ended the run."""
    search_best: StandingRecord | None = field(default=None, metadata=OPTIONAL)
    """The best configuration before the confirmation, which may have chosen another."""
    confirmation: ConfirmationSummary | None = field(default=None, metadata=OPTIONAL)
    decision: Decision | None = field(default=None, metadata=OPTIONAL)
    """None if the run was interrupted, or was made by an older program without decisions."""

    def tied_text(self, n_tied: int, baseline_tied: bool) -> str:
        """Return in words how many other configurations cannot be distinguished from the best, and whether the baseline is one of them."""
        base, others = self.baseline, max(n_tied, self.n_configurations - 1)
        among = "" if base is None or (self.best and base.params == self.best.params) else f", the baseline {'' if baseline_tied else 'not '}among them"
        share = "all" if n_tied == others > 1 else f"{n_tied} of the"
        return f"not distinguishable from the winner by these deployments: {share} {counted(others, 'other configuration')}{among}"
