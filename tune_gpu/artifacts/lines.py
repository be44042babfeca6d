"""Combine the lines of a run about one configuration."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtrit

from tune_gpu.artifacts.records.evaluation import EvaluationRecord


def unchecked_of(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> list[str]:
    """Return what was not checked while these parameters were measured, because the device does not report it. Each sentence appears
    once."""
    found = [line.metrics.get("unchecked") for line in lines if line.params == dict(params)]
    return list(dict.fromkeys(sentence for sentences in found if isinstance(sentences, list) for sentence in sentences if isinstance(sentence, str)))


def line_of(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> EvaluationRecord | None:
    """Return the last measured line of a configuration, or None."""
    return next((line for line in reversed(lines) if line.params == dict(params) and line.fitness is not None), None)


def stderr_of(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> float | None:
    """Return the standard error of a configuration's mean fitness over all of its evaluations, or None for a single window.

    The standard error of an evaluation shows the spread of its windows; the fitness of evaluations shows the spread between them. The sums
    of squares
    add up to that of all windows around the common mean, as in an analysis of variance.
    """
    measured = [line for line in lines if line.params == dict(params) and line.fitness is not None]
    windows = sum(line.n_windows for line in measured)
    if windows < 2 or any(line.fitness_stderr is None and line.n_windows > 1 for line in measured):
        return None
    mean = sum(line.known_fitness * line.n_windows for line in measured) / windows
    between = sum(line.n_windows * (line.known_fitness - mean) ** 2 for line in measured)
    within = sum(line.n_windows * (line.n_windows - 1) * (line.fitness_stderr or 0.0) ** 2 for line in measured)
    return float(((between + within) / (windows - 1) / windows) ** 0.5)


def engine_started(line: EvaluationRecord) -> bool:
    """Return True if an evaluation started an engine, or tried to."""
    parts = line.duration_s.start_by_part
    return not line.engine_reused and (parts is None or "vllm" in parts)


def by_window(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> dict[int, float]:
    """Return window index -> mean fitness of a configuration in that window. Every candidate gets the same traffic in the same window."""
    seen: dict[int, list[float]] = {}
    for line in lines:
        if line.params == dict(params) and line.fitness is not None:
            for index, fitness in enumerate(line.metrics.get("fitness_windows", [])):
                if fitness is not None:
                    seen.setdefault(index, []).append(fitness)
    return {index: sum(values) / len(values) for index, values in seen.items()}


def shown_different(lines: Sequence[EvaluationRecord], a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return True if two configurations differ significantly: a paired t-test over windows with the same traffic, two-sided at 5 %."""
    return differ(by_window(lines, a), by_window(lines, b))


def differ(first: Mapping[int, float], second: Mapping[int, float]) -> bool:
    """Return True if a paired t-test over the windows that both have tells them apart at 5 %."""
    differences = [first[index] - second[index] for index in first.keys() & second.keys()]
    if len(differences) < 2:
        return False
    error = statistics.stdev(differences) / len(differences) ** 0.5
    critical = float(stdtrit(len(differences) - 1, 0.975))
    return abs(statistics.fmean(differences)) > critical * error
