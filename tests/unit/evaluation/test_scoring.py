"""The fitness is of all windows together, and its standard error says how far it would lie elsewhere if they were measured again."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.made_run import line
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.evaluation.errors import jackknife
from tune_gpu.evaluation.scoring import score_metrics
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.metrics import PAIR, catalogue_of
from tune_gpu.services.running import KV_CACHE_PCT
from tune_gpu.telemetry.sampler import DeviceSample, DeviceStats
from tune_gpu.workload.capacity import decide
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult

KV = DeviceSample(0.0, 50.0, 100.0, gauges={"vllm": {KV_CACHE_PCT: 12.5}})
OF_TWO = DeviceSample(0.0, 50.0, 100.0, gauges={"small": {KV_CACHE_PCT: 12.5}, "large": {KV_CACHE_PCT: 80.0, "queue": 3.0}})
OBJECTIVE = ObjectiveSettings(weights={"stt_latency": 0.4, "llm_latency": 0.4, "stability": 0.2})


def turn(stt_ms: float, llm_ms: float, *, error: str | None = None) -> Turn:
    stt_s = stt_ms / 1e3
    answer = GenerationSample(stt_s, [stt_s + llm_ms / 2e3, stt_s + llm_ms / 1e3], 2, error)
    return Turn(0.0, "clip", "yes", {"stt": TranscriptionSample(0.0, stt_s, "yes", 1.0), "llm": answer})


def metrics_of(state: EvaluationState, objective: ObjectiveSettings) -> dict[str, Any]:
    """Return the metrics with the numbers of their score beside them, as a line holds them."""
    metrics, score = score_metrics(state, {}, objective, None)
    return metrics | {"fitness": score.fitness, "fitness_stderr": score.stderr}


def scored(windows: Sequence[Sequence[Turn]], objective: ObjectiveSettings = OBJECTIVE) -> dict[str, Any]:
    device = [DeviceStats(50.0, 100.0, {}, 0, 10)] * len(windows)
    return metrics_of(EvaluationState({}, windows=[WindowResult("mixed", 10.0, list(turns)) for turns in windows], device=device), objective)


def drawn(rng: np.random.Generator, n_windows: int, turns: float) -> list[list[Turn]]:
    """Windows with a mood of their own and a few turns each."""
    moods = rng.normal(0.0, 0.15, n_windows)
    counts = np.maximum(1, rng.poisson(turns, n_windows))
    return [[turn(*(np.array([200.0, 500.0]) * np.exp(mood + 0.3 * rng.normal(size=2)))) for _ in range(n)] for mood, n in zip(moods, counts, strict=True)]


@pytest.mark.parametrize("turns", [1.5, 5.0])
def test_the_error_is_as_large_as_evaluations_that_are_made_again_differ(turns: float) -> None:
    rng = np.random.default_rng(5)
    evaluations = [scored(drawn(rng, 3, turns)) for _ in range(400)]
    spread = statistics.stdev(one["fitness"] for one in evaluations)
    reported = statistics.fmean(one["fitness_stderr"] ** 2 for one in evaluations) ** 0.5
    assert 0.85 < reported / spread < 1.15  # the spread of the windows' own fitness would say 0.67 and 0.76


def test_of_two_windows_with_one_turn_each_it_is_that_of_their_mean() -> None:
    found = scored([[turn(200, 500)], [turn(300, 600)]])
    assert found["fitness_stderr"] == pytest.approx(statistics.stdev(found["fitness_windows"]) / 2**0.5)


def test_one_window_has_the_error_of_its_turns() -> None:
    assert scored([[turn(200, 500)]])["fitness_stderr"] is None, "one turn says nothing of the next"
    rng = np.random.default_rng(7)
    evaluations = [scored([[turn(*(np.array([200.0, 500.0]) * np.exp(0.3 * rng.normal(size=2)))) for _ in range(24)]]) for _ in range(200)]
    spread = statistics.stdev(one["fitness"] for one in evaluations)
    reported = statistics.fmean(one["fitness_stderr"] ** 2 for one in evaluations) ** 0.5
    assert 0.8 < reported / spread < 1.25


def turn_with(clip: str, text: str) -> Turn:
    return Turn(0.0, clip, "one two three four", {"stt": TranscriptionSample(0.0, 0.2, text, 1.0), "llm": turn(200, 500).samples["llm"]})


def of_clips(**errors: int) -> EvaluationState:
    """Two windows that hear every clip; of its four words so many are wrong."""
    wrong = ("one two three four", "one two three x", "one two x x", "one x x x", "x x x x")
    windows = [WindowResult("mixed", 10.0, [turn_with(clip.replace("_", "@"), wrong[n]) for clip, n in errors.items()]) for _ in range(2)]
    return EvaluationState({}, windows=windows, device=[DeviceStats(50.0, 100.0, {}, 0, 10)] * 2)


def test_the_error_of_the_word_error_rate_is_that_over_clips() -> None:
    """It was measured once and copied into each window, so that it had no error at all."""
    objective = ObjectiveSettings(weights={"wer": 1.0}, wer_target=0.1)
    found = metrics_of(of_clips(a=0, b=1, c=2), objective)
    rates = [(1 + 2) / 8, (0 + 2) / 8, (0 + 1) / 8]
    values = [0.1 / (0.1 + rate) for rate in rates]
    assert found["fitness_stderr"] == pytest.approx(jackknife(values), rel=1e-3)
    assert found["fitness_errors"] == {"windows": 0.0, "capacity": 0.0, "wer": found["fitness_stderr"]}
    assert sum(share**2 for share in found["fitness_by_clip"].values()) == pytest.approx(found["fitness_stderr"] ** 2)


def test_noisy_versions_of_a_clip_are_one_clip() -> None:
    objective = ObjectiveSettings(weights={"wer": 1.0})
    found = metrics_of(of_clips(a=0, a_5dB=1, a_0dB=4), objective)
    assert found["fitness"] is not None
    assert found["fitness_by_clip"] is None
    assert found["fitness_stderr"] is None, "one clip says nothing of the next"


@pytest.mark.parametrize("known", [True, False])
def test_a_fitness_of_capacity_alone_has_the_error_of_the_ramp(known: bool) -> None:
    """It printed "0.6604 ± 0.0000"."""
    rng, objective = np.random.default_rng(0), ObjectiveSettings(weights={"capacity": 1.0}, capacity_target_sessions=4.0)
    state = of_clips(a=0, b=0)
    steps = tuple(load * np.exp(0.2 * rng.normal(size=(n if known else 1, 3))) for n, load in ((3, 0.4), (6, 0.7), (9, 1.3)))
    state.windows = [replace(window, turns=window.turns if known else window.turns[:0]) for window in state.windows]
    state.capacity = replace(decide([float(np.percentile(step, 95, axis=0).max()) for step in steps], at_ceiling=False), steps=steps)
    found = metrics_of(state, objective)
    if not known:
        assert (found["fitness_stderr"], found["capacity_interval"]) == (None, None)
        return
    low, high = found["capacity_interval"]
    assert low < state.capacity.continuous < high
    assert 0.001 < found["fitness_stderr"] < 0.2
    assert found["fitness_errors"]["windows"] == 0.0
    assert found["fitness_errors"]["capacity"] == found["fitness_stderr"]


def test_the_search_hears_the_error_that_the_next_deployment_shows() -> None:
    """Every deployment hears the same clips: their part of the error is in the line, and no noise of the search."""
    measured = metrics_of(of_clips(a=0, b=1, c=2), ObjectiveSettings(weights={"wer": 1.0}))
    kept = line("g0-c0", {"a": 1}, measured["fitness"], n_windows=2, fitness_stderr=measured["fitness_stderr"], metrics={name: measured[name] for name in ("fitness_by_clip", "fitness_errors")})
    assert (kept.fitness_stderr or 0.0) > 0.0
    assert kept.result().stderr == 0.0
    assert line("g0-c0", {"a": 1}, 0.5, n_windows=2, fitness_stderr=0.1).result().stderr == 0.1


def test_a_window_that_breaks_a_limit_alone_still_says_how_they_spread() -> None:
    failing = [turn(200, 500), turn(250, 500, error="timeout")]
    limited = ObjectiveSettings(weights=OBJECTIVE.weights, max_failed_requests_pct=20.0)
    found = scored([failing, [turn(200 + 10 * i, 500) for i in range(5)], [turn(240, 520)] * 5], limited)
    assert found["fitness"] is not None
    assert found["fitness_windows"][0] is None
    assert found["fitness_stderr"] > 0.0


def test_turns_that_are_all_in_one_window_have_no_known_spread() -> None:
    found = scored([[turn(200, 500), turn(210, 510)], [], []])
    assert found["fitness"] is not None
    assert found["fitness_stderr"] is None


def test_what_is_measured_of_a_candidate_may_be_an_objective() -> None:
    found = scored([[turn(200, 500)], [turn(300, 600)]])
    of_the_measurement = {"fitness", "fitness_stderr", "n_invalid_windows"}  # the first two are no metrics in a line, the third says how well it was measured
    single = {name for name, value in found.items() if isinstance(value, (int, float)) and not isinstance(value, bool)} - of_the_measurement
    spread = {f"{name}.p95" for name, value in found.items() if isinstance(value, dict) and "p95" in value}
    assert {"n_requests", "llm_latency_ms.p95"} <= single | spread <= PAIR.objective_paths().keys()


def test_each_engine_has_the_facts_and_the_use_of_its_own_cache() -> None:
    llms = catalogue_of({"small": Protocol.CHAT, "large": Protocol.COMPLETION})
    state = EvaluationState({}, windows=[WindowResult("mixed", 10.0, [turn(200, 500)])], device=[DeviceStats(50.0, 100.0, {}, 0, 10, (KV, OF_TWO))])
    facts: dict[str, dict[str, Any]] = {"small": {"kv_cache_tokens": 4096, "max_concurrency": 2.0}, "large": {"kv_cache_tokens": 8192}}
    found, _ = score_metrics(state, facts, ObjectiveSettings(weights={"efficiency": 1.0}), None, llms)
    assert (found["small.kv_cache_tokens"], found["large.kv_cache_tokens"], found["small.kv_max_concurrency"]) == (4096, 8192, 2.0)
    assert (found["small.kv_cache_peak_pct"], found["large.kv_cache_peak_pct"], found["large.kv_max_concurrency"]) == (12.5, 80.0, None)
    pair, _ = score_metrics(state, {"vllm": {"kv_cache_tokens": 4096, "max_concurrency": 2.0}}, ObjectiveSettings(weights={"efficiency": 1.0}), None)
    assert (pair["kv_cache_tokens"], pair["kv_max_concurrency"], pair["kv_cache_peak_pct"]) == (4096, 2.0, 12.5)


def test_the_trace_has_a_column_for_each_gauge_of_each_service() -> None:
    llms = catalogue_of({"small": Protocol.CHAT, "large": Protocol.COMPLETION})
    state = EvaluationState({}, windows=[WindowResult("mixed", 10.0, [turn(200, 500)])], device=[DeviceStats(50.0, 100.0, {}, 0, 10, (KV, OF_TWO))])
    trace = score_metrics(state, {}, ObjectiveSettings(weights={"efficiency": 1.0}), None, llms)[0]["device_trace"]
    assert (trace["small.kv_cache_pct"], trace["large.kv_cache_pct"], trace["large.queue"]) == ([None, 12.5], [None, 80.0], [None, 3.0])
    pair = EvaluationState({}, windows=state.windows, device=[DeviceStats(50.0, 100.0, {}, 0, 10, (KV, DeviceSample(1.0, 50.0, 100.0)))])
    assert score_metrics(pair, {}, ObjectiveSettings(weights={"efficiency": 1.0}), None)[0]["device_trace"]["kv_cache_pct"] == [12.5, None]
