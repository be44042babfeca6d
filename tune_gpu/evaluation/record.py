"""One evaluation as a run keeps it: its line in the artifacts, its report to Tune, and what it says to the search."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.evaluation.measurement import Measurement, Status
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.evaluation.retries import LOST, Cause
from tune_gpu.search.evaluations import Candidate, Result
from tune_gpu.search.reports import read_report

METRIC, MODE = "fitness", "max"
"""What a run optimises."""


@dataclass(frozen=True)
class EvaluationRecord:
    """A line of `gen_<n>_candidates.jsonl`. The fields are the keys of the line; those with a default may be absent from old runs.

    Raises:
        ValueError: a field that the search reads holds something else.
    """

    candidate_id: str
    generation: int
    origin: str
    params: dict[str, Any]
    status: str
    n_windows: int
    fitness: float | None
    asked_after: int = 0
    violation: float | None = 0.0
    transient: bool = False
    failure: dict[str, Any] | None = None
    fitness_stderr: float | None = None
    objectives: dict[str, float | None] = field(default_factory=dict)
    violations: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    measured_on: dict[str, Any] | None = None
    started_at: str = ""
    wall_s: float | None = 0.0
    retries: list[Cause] = field(default_factory=list)
    duration_s: dict[str, Any] = field(default_factory=dict)
    engine_reused: bool = False
    engine: dict[str, Any] = field(default_factory=dict)
    told_after: int | None = None
    """How many lines the run had before this one; set when it is kept."""

    def __post_init__(self) -> None:
        if self.status not in tuple(Status):
            raise ValueError(f"status={self.status!r}: allowed are {', '.join(Status)}")
        if self.fitness is not None and (isinstance(self.fitness, bool) or not isinstance(self.fitness, (int, float))):
            raise ValueError(f"fitness={self.fitness!r}: allowed is a number or null")
        if not isinstance(self.n_windows, int) or not isinstance(self.params, Mapping) or not isinstance(self.objectives, (Mapping, type(None))):
            raise ValueError("n_windows, params or objectives is of another type")

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        measurement: Measurement,
        *,
        objectives: Collection[str] = (),
        violation: float | None = None,
        started_at: str,
        wall_s: float,
        retries: Sequence[Cause] = (),
        redact: Callable[[Any], Any] = lambda value: value,
    ) -> EvaluationRecord:
        """Build the record of an evaluation.

        Args:
            candidate: what was evaluated.
            measurement: its outcome.
            objectives: the metrics that Pareto mode compares; one that was not measured is absent.
            violation: by how much it misses; null to take it from the measurement.
            started_at: UTC.
            wall_s: of all its attempts.
            retries: why earlier attempts were given up.
            redact: removes secrets; a failure may quote the log of a service.
        """
        metrics = dict(measurement.metrics)
        fitness, stderr, violations = metrics.pop("fitness", None), metrics.pop("fitness_stderr", None), metrics.pop("violations", {})
        failure = measurement.failure
        wanted = objectives if fitness is not None else ()
        return cls(
            **asdict(candidate),
            status=str(measurement.status),
            violation=_violation(measurement, violations) if violation is None else violation,
            transient=bool(failure and failure.retryable),
            n_windows=measurement.n_windows,
            failure=redact(failure.as_dict()) if failure else None,
            fitness=fitness,
            fitness_stderr=stderr,
            objectives={path: value for path in wanted if (value := metric_at(measurement.metrics, path)) is not None},
            violations=violations,
            metrics=metrics,
            device=measurement.device,
            measured_on=dict(measurement.measured_on) or None,
            started_at=started_at,
            wall_s=round(wall_s, 3),
            retries=list(retries),
            duration_s=measurement.timings.as_dict(),
            engine_reused=measurement.engine_reused,
            engine=dict(measurement.engine),
        )

    @classmethod
    def lost(cls, candidate: Candidate, device: str, *, started_at: str, retries: Sequence[Cause]) -> EvaluationRecord:
        """Build the record of a trial whose process ended without a result; it says nothing about the candidate."""
        failure = Failure(FailureKind(LOST["kind"]), LOST["service"], Phase(LOST["phase"]), LOST["message"])
        found = cls.of(candidate, Measurement.failed(failure, device), violation=0.0, started_at=started_at, wall_s=0.0, retries=retries)
        return replace(found, duration_s={"start": 0.0, "load": 0.0, "stop": 0.0})  # without parts: nobody knows how far it came

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> EvaluationRecord:
        """Read a line of the artifacts; unknown keys are ignored. Raises UserError for a line that this program did not write."""
        known = {each.name for each in fields(cls)}
        try:
            return cls(**{key: value for key, value in line.items() if key in known})
        except (TypeError, ValueError) as error:
            raise UserError(f"candidate {line.get('candidate_id')!r}: not a candidate's line ({error})") from error

    def as_line(self) -> dict[str, Any]:
        """Return the line of the artifacts, which has the number of retries, too."""
        line = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("retries", "told_after")}
        line |= {"n_retries": len(self.retries), "retries": self.retries}
        return line if self.told_after is None else line | {"told_after": self.told_after}

    def report(self) -> dict[str, Any]:
        """Return what Tune hears of it. The line travels as text, for Tune would flatten it."""
        return self._said() | {"line_json": json.dumps(self.as_line())}

    def result(self, objectives: Collection[str] = ()) -> Result:
        """Return what it says to the search."""
        return read_report(self._said(), METRIC, MODE, objectives)

    def _said(self) -> dict[str, Any]:
        said = {"status": self.status, "violation": self.violation, "transient": self.transient, "n_windows": self.n_windows}
        fitness = math.nan if self.fitness is None else self.fitness  # Tune wants the key
        return {**said, **(self.objectives or {}), METRIC: fitness, "stderr": self.fitness_stderr}


def as_result(line: Mapping[str, Any], objectives: Collection[str] = ()) -> Result:
    """Return what a kept line says to the search: what its report said when it arrived. Raises UserError for a foreign line."""
    return EvaluationRecord.from_line(line).result(objectives)


def as_counted(line: Mapping[str, Any], objectives: Collection[str]) -> dict[str, Any]:
    """Return the line as the search counts it: one that lacks an objective has no fitness, and names what is missing."""
    if not objectives or line["fitness"] is None or as_result(line, objectives).fitness is not None:
        return dict(line)
    measured = line.get("objectives") or {}
    missing = {f"search.objectives.{name} (not measured)": 1.0 for name in objectives if measured.get(name) is None}
    return {**line, "fitness": None, "violations": {**(line.get("violations") or {}), **missing}}


def _violation(measurement: Measurement, violations: Mapping[str, float]) -> float:
    """By how much it missed: what was refused or failed ranks below what was measured and missed a constraint only."""
    if measurement.failure is None:
        return sum(violations.values())
    return (1000.0 if measurement.status is Status.FAILED else 500.0) + measurement.failure.shortfall
