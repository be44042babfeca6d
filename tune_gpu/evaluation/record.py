"""Build the record of an evaluation from its measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import Durations, EngineReport, EvaluationRecord, FailedAttempt, FailureRecord
from tune_gpu.common.failures import Failure, FailureKind, Phase, Status
from tune_gpu.evaluation.measurement import Measurement, Score
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.evaluation.retries import LOST
from tune_gpu.metrics import FITNESS
from tune_gpu.search.evaluations import Candidate


def record_of(
    candidate: Candidate,
    measurement: Measurement,
    *,
    objectives: Collection[str] = (),
    violation: float | None = None,
    started_at: str,
    wall_s: float,
    retries: Sequence[FailedAttempt] = (),
    redact: Callable[[Any], Any] = lambda value: value,
) -> EvaluationRecord:
    """Build the record of an evaluation.

    Args:
        candidate: what was evaluated.
        measurement: its outcome.
        objectives: the metrics that Pareto mode compares; one that was not measured is absent.
        violation: by how much it misses; None to take it from the measurement.
        started_at: UTC.
        wall_s: of all its attempts.
        retries: its earlier attempts, which failed.
        redact: removes secrets; a failure may quote the log of a service.
    """
    score = measurement.score or Score(None)
    compared = {**measurement.metrics, FITNESS.name: score.fitness}
    failure = measurement.failure
    wanted = objectives if score.fitness is not None else ()
    return EvaluationRecord(
        candidate_id=candidate.candidate_id,
        generation=candidate.generation,
        origin=candidate.origin,
        params=candidate.params,
        asked_after=candidate.asked_after,
        status=measurement.status,
        violation=_violation(measurement) if violation is None else violation,
        transient=bool(failure and failure.retryable),
        n_windows=measurement.n_windows,
        failure=FailureRecord.parse(redact(failure.as_dict()), "failure") if failure else None,
        fitness=score.fitness,
        fitness_stderr=score.stderr,
        objectives={path: value for path in wanted if (value := metric_at(compared, path)) is not None},
        violations=dict(score.violations),
        metrics=dict(measurement.metrics),
        device=measurement.device,
        measured_on=DeviceRecord.parse(measurement.measured_on, "measured_on") if measurement.measured_on else None,
        started_at=started_at,
        wall_s=round(wall_s, 3),
        n_retries=len(retries),
        retries=tuple(retries),
        duration_s=measurement.timings.durations(),
        engine_reused=measurement.engine_reused,
        engine=EngineReport.parse(measurement.engine, "engine"),
    )


def lost(candidate: Candidate, device: str, *, started_at: str, retries: Sequence[FailedAttempt]) -> EvaluationRecord:
    """Build the record of a trial whose process ended without a result. It says nothing about the candidate."""
    failure = Failure(FailureKind(LOST.kind), LOST.service, Phase(LOST.phase), LOST.message)
    found = record_of(candidate, Measurement.failed(failure, device), violation=0.0, started_at=started_at, wall_s=0.0, retries=retries)
    return replace(found, duration_s=Durations.parse({"start": 0.0, "load": 0.0, "stop": 0.0}, "duration_s"))  # nobody knows how far it came


def _violation(measurement: Measurement) -> float:
    """Return by how much it missed. A refusal or failure ranks below a measurement that only violates a constraint."""
    if measurement.failure is None:
        return sum(measurement.score.violations.values()) if measurement.score else 0.0
    return (1000.0 if measurement.status is Status.FAILED else 500.0) + measurement.failure.shortfall
