"""Turn a run's lines into evidence: each line is one deployment."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.search.evidence import Deployment, Evidence, freedom_of


def key_of(params: Mapping[str, Any]) -> Hashable:
    """Return a key that is the same for equal configurations, whatever the order of their parameters. 1 and 1.0 are equal."""
    return tuple(sorted((name, value if isinstance(value, Hashable) else repr(value)) for name, value in params.items()))


def evidence_of(lines: Iterable[EvaluationRecord], anchors: Iterable[EvaluationRecord] = (), key: Callable[[Mapping[str, Any]], Hashable] = key_of) -> Evidence:
    """Return the evidence in the lines of a run.

    Args:
        lines: lines of candidates. The baseline's line in generation 0 is an anchor.
        anchors: lines of further deployments of the baseline, which the tournament does not use.
        key: function that returns the same key for equal configurations.
    """
    return Evidence([*_deployments(lines, key, anchors=False), *_deployments(anchors, key, anchors=True)])


def error_of(line: EvaluationRecord, evidence: Evidence) -> float | None:
    """Return the standard error of one evaluation's fitness, or None if it is unknown.

    It covers the windows, the ramp, the clips and the differences between deployments.
    """
    if line.fitness is None or not evidence.known:
        return None
    return evidence.noise if line.fitness_stderr is None else math.hypot(line.fitness_stderr, evidence.between or 0.0)


def errors_of(lines: Sequence[EvaluationRecord], anchors: Iterable[EvaluationRecord] = ()) -> dict[str, float]:
    """Return the standard error of each evaluation by its candidate's id. An evaluation whose error is unknown is absent."""
    evidence = evidence_of(lines, anchors)
    return {line.candidate_id: error for line in lines if (error := error_of(line, evidence)) is not None}


def _deployments(lines: Iterable[EvaluationRecord], key: Callable[[Mapping[str, Any]], Hashable], *, anchors: bool) -> list[Deployment]:
    return [
        deployment_of(line, key(line.params), anchor=anchors or line.origin == "baseline")
        for line in lines
        if line.fitness is not None
    ]


def deployment_of(line: EvaluationRecord, key: Hashable, *, anchor: bool = False) -> Deployment:
    """Return the deployment of a line that has a fitness.

    An error of 0 in a line without `fitness_errors` is unknown: earlier versions resampled neither ramp nor clips.
    """
    error = line.repeat_stderr
    if error == 0.0 and "fitness_errors" not in line.metrics:
        error = None
    return Deployment(key, line.known_fitness, error, freedom_of(error, line.n_windows), _seconds(line.started_at), anchor, line.clip_shares)


def _seconds(started_at: str) -> float:
    """Return a time stamp in seconds; 0 for a line without one."""
    try:
        return datetime.fromisoformat(started_at).timestamp()
    except ValueError:
        return 0.0
