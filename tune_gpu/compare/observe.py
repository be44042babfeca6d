"""Convert the results of windows to turns and replicates of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.compare.samples import Replicate, Turn, ended_early_key, errors_key, turn_metrics, words_key
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.metrics import CAPACITY, GPU_UTILIZATION, OOM_EVENTS, PAIR, SERVICE_MEMORY
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.turn import Turn as DrivenTurn
from tune_gpu.workload.turn import sample_of
from tune_gpu.workload.wer import word_errors
from tune_gpu.workload.window import WindowResult


def make_turn(sample: DrivenTurn, catalogue: Catalogue = PAIR) -> Turn:
    """Return the values of one turn. An empty transcript counts as wrong, not as missing."""
    place = f"{sample.place.session}/{sample.place.number}" if sample.place is not None else None
    values = {metric.turn_key: sample_of(sample, metric) for metric in turn_metrics(catalogue)}
    values |= {ended_early_key(label): 1.0 for label, answer in sample.samples.items() if isinstance(answer, GenerationSample) and answer.ended_early}
    if sample.transcript is None:
        return Turn(values, error=sample.error, clip=sample.name, place=place)
    errors, words = word_errors(sample.reference, sample.transcript, sample.language)
    if catalogue is PAIR:
        return Turn(values, errors, words, sample.error, sample.name, place)
    service = next(iter(sample.samples))
    return Turn(values | {errors_key(service): errors, words_key(service): words}, error=sample.error, clip=sample.name, place=place)


def turns_by_arrival(windows: Sequence[WindowResult], catalogue: Catalogue = PAIR) -> tuple[Turn, ...]:
    """Return every turn of the windows in the order of due times, which differs from the order in which they ended."""
    return tuple(make_turn(sample, catalogue) for window in windows for sample in sorted(window.turns, key=lambda sample: sample.due))


def make_replicate(
    arm: str, number: int, windows: Sequence[WindowResult], measured: Measurement, wall_s: float, catalogue: Catalogue = PAIR
) -> Replicate:
    """Return a deployment that was measured, or that failed, as a replicate."""
    if measured.failure is not None:
        return Replicate(arm, number, wall_s=wall_s, failure=measured.failure.as_dict())
    metrics: Mapping[str, Any] = measured.metrics
    return Replicate(
        arm,
        number,
        turns_by_arrival(windows, catalogue),
        metrics.get(CAPACITY.name),
        measured.score.fitness if measured.score else None,
        metrics.get(GPU_UTILIZATION.name),
        int(metrics.get(OOM_EVENTS.name) or 0),
        dict(metrics.get(SERVICE_MEMORY.name) or {}),
        round(wall_s, 3),
        capacity_at_ceiling=metrics.get(CAPACITY.at_least) is True,
    )
