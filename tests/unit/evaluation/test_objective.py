"""Fitness: strictly monotone, never tied by saturation, absent where nothing was measured."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.evaluation.objective import evaluate, metric_at

WEIGHTS = {"stt_latency": 0.25, "llm_latency": 0.25, "capacity": 0.2, "stability": 0.2, "efficiency": 0.1, "wer": 0.2}
OBJECTIVE = ObjectiveSettings(weights=WEIGHTS)


def metrics(**change: Any) -> dict[str, Any]:
    def spread(p50: float, p95: float) -> dict[str, float]:
        return {"p50": p50, "p90": p95, "p95": p95, "p99": p95, "mean": p50, "n": 10}

    base = {"stt": 400.0, "llm": 800.0, "turn95": 900.0, "capacity_continuous": 2.5, "gpu_utilization": 60.0, "wer": 0.05, "n_failed": 0}
    values = base | change
    return {
        "stt_latency_ms": spread(300, values["stt"]),
        "llm_latency_ms": spread(500, values["llm"]),
        "voice_turn_ms": spread(600, values["turn95"]),
        "capacity_continuous": values["capacity_continuous"],
        "gpu_utilization": values["gpu_utilization"],
        "wer": values["wer"],
        "n_requests": 100,
        "n_failed": values["n_failed"],
        "oom_events": 0,
    }


def fitness(**change: Any) -> float:
    value = evaluate(metrics(**change), OBJECTIVE).fitness
    assert value is not None
    return value


latencies = st.floats(10, 60_000)


@given(latencies, latencies)
def test_a_sooner_answer_is_better_also_far_past_the_target(a: float, b: float) -> None:
    for term in ("stt", "llm"):
        if a < b * (1 - 1e-6):
            assert fitness(**{term: a}) > fitness(**{term: b})


@given(st.floats(0.01, 50), st.floats(0.01, 50))
def test_more_callers_are_better(a: float, b: float) -> None:
    if a < b * (1 - 1e-6):
        assert fitness(capacity_continuous=a) < fitness(capacity_continuous=b)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_wrong_words_are_worse(a: float, b: float) -> None:
    if a < b - 1e-9:
        assert fitness(wer=a) > fitness(wer=b)


@given(st.floats(600, 1e5), st.floats(600, 1e5))
def test_a_steadier_answer_is_better(a: float, b: float) -> None:
    if a < b * (1 - 1e-6):
        assert fitness(turn95=a) > fitness(turn95=b)


@given(st.floats(0, 100), st.floats(0, 100))
def test_nearer_to_the_wanted_utilisation_is_better(a: float, b: float) -> None:
    if abs(a - 70) < abs(b - 70) - 1e-3:
        assert fitness(gpu_utilization=a) > fitness(gpu_utilization=b)


def test_fitness_is_the_weighted_mean_of_the_terms() -> None:
    terms = {
        "stt_latency": 500 / 900,
        "llm_latency": 1000 / 1800,
        "capacity": 2.5 / 6.5,
        "stability": 1 / 1.5,
        "efficiency": 49 / 50,
        "wer": 2 / 3,
    }
    expected = sum(WEIGHTS[name] * terms[name] for name in WEIGHTS) / 1.2
    assert fitness() == pytest.approx(expected)


def test_what_was_not_measured_leaves_fitness_absent() -> None:
    for name in ("stt_latency_ms", "capacity_continuous", "wer", "gpu_utilization", "voice_turn_ms"):
        assert evaluate(metrics() | {name: None}, OBJECTIVE).fitness is None


def test_a_term_without_weight_need_not_be_measured() -> None:
    objective = ObjectiveSettings(weights={"llm_latency": 1.0, "wer": 0.0})
    assert evaluate(metrics() | {"wer": None}, objective).fitness == pytest.approx(1000 / 1800)


def test_a_violated_constraint_takes_the_fitness_and_says_by_how_much() -> None:
    scored = evaluate(metrics(n_failed=15), OBJECTIVE)
    assert scored.fitness is None
    assert scored.violations == {"max_failed_requests_pct": pytest.approx(2.0)}
    strict = ObjectiveSettings(weights=WEIGHTS, max_wer=0.02)
    assert evaluate(metrics(), strict).violations == {"max_wer": pytest.approx(1.5)}


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        (ObjectiveSettings(weights={"speed": 1.0}), r"objective\.weights\.speed: no such term"),
        (ObjectiveSettings(weights={"wer": -1.0}), "of at least 0"),
        (ObjectiveSettings(weights={"wer": 0.0}), "at least one"),
        (ObjectiveSettings(weights={"wer": float("inf")}), r"objective\.weights\.wer=inf: not a finite number. Set a finite number"),
        (ObjectiveSettings(weights=WEIGHTS, wer_target=0), r"objective\.wer_target=0"),
        (ObjectiveSettings(weights=WEIGHTS, latency_percentile=42), "50, 90, 95, 99"),
    ],
)
def test_an_objective_that_is_none_is_refused(objective: ObjectiveSettings, named: str) -> None:
    with pytest.raises(UserError, match=named):
        check(objective, "objective.")


def test_a_metric_is_found_by_its_dotted_name_unless_it_is_no_number() -> None:
    assert metric_at(metrics(), "stt_latency_ms.p95") == 400.0
    assert metric_at(metrics(), "wer") == 0.05
    for path in ("stt_latency_ms", "stt_latency_ms.p42", "nothing", "wer.p95"):
        assert metric_at(metrics(), path) is None
