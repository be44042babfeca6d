"""From what windows saw to the turns and blocks of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.compare.samples import Block, Turn
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.workload.voice_turn import TurnSample
from tune_gpu.workload.wer import word_errors
from tune_gpu.workload.window import WindowResult


def turn_of(sample: TurnSample) -> Turn:
    """The values of one turn; a transcript of nothing is heard wrongly, not unheard."""
    heard = sample.stt if sample.stt is not None and sample.stt.error in (None, "empty_transcript") else None
    errors, words = word_errors(sample.reference, heard.text, sample.language) if heard else (None, None)
    return Turn(
        sample.stt.latency_ms if sample.stt else None,
        sample.llm.ttft_ms if sample.llm else None,
        sample.llm.latency_ms if sample.llm else None,
        sample.voice_turn_ms,
        errors,
        words,
        sample.error,
    )


def turns_by_arrival(windows: Sequence[WindowResult]) -> tuple[Turn, ...]:
    """Every turn of the windows in the order in which they were due (they end in another)."""
    return tuple(turn_of(sample) for window in windows for sample in sorted(window.turns, key=lambda sample: sample.due))


def block_of(arm: str, number: int, windows: Sequence[WindowResult], measured: Measurement, wall_s: float) -> Block:
    """A deployment that was measured, or one that failed."""
    if measured.failure is not None:
        return Block(arm, number, wall_s=wall_s, failure=measured.failure.as_dict())
    metrics: Mapping[str, Any] = measured.metrics
    return Block(
        arm,
        number,
        turns_by_arrival(windows),
        metrics.get("capacity_continuous"),
        metrics.get("fitness"),
        metrics.get("gpu_utilization"),
        int(metrics.get("oom_events") or 0),
        dict(metrics.get("service_memory_mib") or {}),
        round(wall_s, 3),
    )
