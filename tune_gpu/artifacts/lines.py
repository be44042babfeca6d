"""Look up a configuration in the lines of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.default_pair import LLM, STT
from tune_gpu.config.space_services import TAKEN


def unchecked_of(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> list[str]:
    """Return which checks were not made while these parameters were measured, because the device does not report the values. Each sentence
    appears once."""
    found = [line.metrics.get("unchecked") for line in lines if line.params == dict(params)]
    return list(dict.fromkeys(sentence for sentences in found if isinstance(sentences, list) for sentence in sentences if isinstance(sentence, str)))


def line_of(lines: Sequence[EvaluationRecord], params: Mapping[str, Any]) -> EvaluationRecord | None:
    """Return the last measured line of a configuration, or None."""
    return next((line for line in reversed(lines) if line.params == dict(params) and line.fitness is not None), None)


def started_services(line: EvaluationRecord) -> list[str]:
    """Return the services that an evaluation started, in their order; those that it kept from the one before are left out."""
    return [name for name, seconds in (line.duration_s.start_by_part or {}).items() if seconds > 0.0 and name not in TAKEN]


def engine_started(line: EvaluationRecord) -> bool:
    """Return True if an evaluation started an engine, or tried to."""
    parts = line.duration_s.start_by_part
    if line.engine_reused or parts is None:
        return not line.engine_reused
    return bool(parts) and (LLM.name in parts or STT.name not in parts)  # the default pair's engine starts last, so that a failure may come before it
