"""Fitness: strictly monotone, never tied by saturation, absent where nothing was measured."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig, ObjectiveSettings, SearchSettings, WorkloadSettings
from tune_gpu.config.search_settings import target_of
from tune_gpu.config.space_catalogue import catalogue_for, name_defaults
from tune_gpu.config.space_services import schema_of
from tune_gpu.evaluation.objective import evaluate, metric_at
from tune_gpu.evaluation.targets import missed_targets
from tune_gpu.metrics import LLM_LATENCY, PAIR, TTFT, VOICE_TURN, catalogue_of

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


TWO = {"small": Protocol.CHAT, "large": Protocol.COMPLETION}
LLMS = catalogue_of(TWO)
TWO_WEIGHTS = {"small.latency": 0.5, "large.ttft": 0.5}


def two_llms(**sections: Any) -> ExperimentConfig:
    """A configuration of a space with two LLMs."""
    config = schema_of((("small", "vllm"), ("large", "vllm")))(**sections)
    config.services.small.api, config.services.large.api = "chat", "completions"
    return config


def of_two(**change: Any) -> dict[str, Any]:
    values = {"small.latency_ms": 400.0, "large.ttft_ms": 300.0, "large.itl_ms": 20.0, "turn_ms": 900.0} | change
    return {name: {"p50": value / 2, "p95": value, "n": 100} for name, value in values.items()} | {"n_requests": 100, "n_failed": 3}


def test_the_terms_of_any_space_are_its_services() -> None:
    objective = ObjectiveSettings(weights=TWO_WEIGHTS)
    found = evaluate(of_two(), objective, LLMS)
    assert found.terms == pytest.approx({"small.latency": 1000 / 1400, "large.ttft": 500 / 800, "large.itl": 50 / 70, "stability": 0.97 / 2})
    assert found.fitness == pytest.approx((1000 / 1400 + 500 / 800) / 2)
    assert evaluate(of_two() | {"large.ttft_ms": None}, objective, LLMS).fitness is None


def test_a_target_is_the_services_own_or_that_of_its_protocol() -> None:
    objective = ObjectiveSettings(targets={"large.ttft_ms": 100.0, "turn_ms": 800.0}, llm_latency_target_ms=700.0)
    targets = {name: target_of(objective, LLMS.of(entry, service)) for name, entry, service in (
        ("named", TTFT, "large"), ("protocol's", TTFT, "small"), ("set", LLM_LATENCY, "small"), ("turn's", VOICE_TURN, ""))}  # fmt: skip
    assert targets == {"named": 100.0, "protocol's": 500.0, "set": 700.0, "turn's": 800.0}
    assert target_of({"targets": 7, "ttft_target_ms": "fast"}, PAIR.of(TTFT)) is None, "a foreign file"
    (missed,) = missed_targets(of_two(), None, {"targets": {"large.ttft_ms": 100.0}, "latency_percentile": 95}, LLMS)
    assert missed.text.startswith("its first token of large at p95 is 300 ms, far outside the target of 100 ms")


def test_a_default_target_that_nobody_chose_is_not_missed() -> None:
    """50 ms between tokens is the default: a decision names it only if the user has set it, or weighs the metric."""
    slow = {"small.itl_ms": {"p95": 200.0, "n": 10}}
    chosen: list[dict[str, Any]] = [{}, {"weights": {"small.itl": 0.0}}, {"weights": {"small.itl": 1.0}}, {"targets": {"small.itl_ms": 50.0}}]
    assert [len(missed_targets(slow, None, objective, LLMS)) for objective in chosen] == [0, 0, 1, 1]


def test_a_limit_holds_for_any_metric_in_its_own_direction() -> None:
    limits = {"large.ttft_ms": 200.0, "small.latency_ms.p50": 200.0, "small.kv_cache_tokens": 4000.0, "failed_pct": 2.0, "large.itl_ms.p95": 10.0}
    found = evaluate(of_two() | {"small.kv_cache_tokens": 1000}, ObjectiveSettings(weights=TWO_WEIGHTS, limits=limits), LLMS)
    assert found.fitness is None
    assert found.violations == pytest.approx({"large.ttft_ms": 0.5, "small.kv_cache_tokens": 0.75, "failed_pct": 0.5, "large.itl_ms.p95": 1.0})
    assert evaluate(metrics(), ObjectiveSettings(weights=WEIGHTS, limits={"stt_latency_ms": 100.0}), PAIR).violations == {"stt_latency_ms": 3.0}


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"weights": {"small.latencies": 1.0}}, r"objective\.weights\.small\.latencies: no such term \(did you mean small\.latency\?\)\. Use one of small\.latency, "),
        ({"weights": {"stt_latency": 1.0}}, r"objective\.weights\.stt_latency: no such term"),
        ({"targets": {"small.wer": 1.0}}, r"objective\.targets\.small\.wer: no such metric with a target"),
        ({"limits": {"large.ttft": 1.0}}, r"objective\.limits\.large\.ttft: no such metric \(did you mean large\.ttft_ms"),
        ({"limits": {"large.ttft_ms": -1.0}}, r"objective\.limits\.large\.ttft_ms=-1\.0: .*at least 0"),
        ({"targets": {"large.ttft_ms": 0.0}}, r"objective\.targets\.large\.ttft_ms=0\.0: .*above 0"),
        ({"limits": {"concurrent_capacity": 2.0}}, r"objective\.limits\.concurrent_capacity: it is not measured with workload\.capacity_step_s=0\. Remove it"),
    ],
)
def test_a_name_that_a_space_does_not_have_is_refused(objective: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(two_llms(objective=ObjectiveSettings(**objective), workload=WorkloadSettings(capacity_step_s=0.0)))


def test_an_unknown_term_of_the_default_pair_is_refused() -> None:
    with pytest.raises(UserError, match=r"objective\.weights\.speed: no such term"):
        check(ExperimentConfig(objective=ObjectiveSettings(weights={"speed": 1.0})))
    with pytest.raises(UserError, match=r"search\.objectives\.speed: no such metric"):
        check(ExperimentConfig(search=SearchSettings(objectives={"speed": "max", "wer": "min"})))


def test_a_space_has_its_own_names_in_the_defaults() -> None:
    config = two_llms()
    assert catalogue_for(config) is LLMS
    config.confirm.tolerances["failed_pct"] = 2.0
    config.confirm.metric = "voice_turn_ms.p50"
    name_defaults(config)
    assert (config.confirm.metric, config.promote.metric) == ("turn_ms.p50", "turn_ms.p95")
    assert config.confirm.tolerances == LLMS.tolerances() | {"failed_pct": 2.0}
    config.confirm.tolerances = {"small.ttft_ms": 5.0}
    name_defaults(config)
    assert config.confirm.tolerances == {"small.ttft_ms": 5.0}, "a mapping that was given whole"
    pair = ExperimentConfig()
    name_defaults(pair)
    assert pair == ExperimentConfig()
