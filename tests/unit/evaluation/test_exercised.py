"""A run says which parameters its traffic could not show, and which moved nothing beyond the noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.made_run import line
from tests.support.runs import ARTIFACTS, INTERRUPTED, MISLEADING, OFF_ITS_FRONT, RUN, WHOLE
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.exercise import ExerciseRecord
from tune_gpu.evaluation.exercised import recorded_exercise
from tune_gpu.report.data import report_data


def exercise_in(run_id: str, root: Any = ARTIFACTS) -> ExerciseRecord:
    record = read_run(root, run_id)
    return recorded_exercise(record.lines, record.config, record.anchors)


@pytest.mark.parametrize(("run_id", "pct", "tokens"), [(INTERRUPTED, "0.22", "632,576"), (WHOLE, "0.16", "311,296")])
def test_the_recorded_runs_could_not_show_the_size_of_the_cache(run_id: str, pct: str, tokens: str) -> None:
    assert exercise_in(run_id).sentences[0] == f"working set {pct} % of the KV cache ({tokens} tokens or more): vllm_memory_util could not matter here"


def test_a_run_that_recorded_no_use_of_the_cache_says_nothing_of_it() -> None:
    assert exercise_in(RUN).unexercised == ()


def test_a_type_of_the_cache_is_said_to_matter_by_its_speed_alone() -> None:
    sentence = exercise_in(OFF_ITS_FRONT, MISLEADING).sentences[0]
    assert sentence == "working set 1.5 % of the KV cache (427,520 tokens or more): the effect of kv on the size of the cache could not matter here"


def test_the_report_says_it_beside_its_other_caveats() -> None:
    caveats = report_data(read_run(ARTIFACTS, WHOLE)).caveats
    assert "Working set 0.16 % of the KV cache (311,296 tokens or more): vllm_memory_util could not matter here." in caveats


def fitnesses(effect: float) -> list[Any]:
    """Two parameters on a grid, each configuration measured with an error of 0.01. `big` moves the fitness by `effect`, `none` by nothing."""
    params = [{"big": big, "none": none} for big in (0, 1) for none in (0, 1)]
    return [line(f"g0-c{i}", each, 0.5 + effect * each["big"] + 0.001 * i, fitness_stderr=0.01) for i, each in enumerate(params)]


def test_a_parameter_is_inside_the_noise_if_no_pair_of_it_alone_differs() -> None:
    assert recorded_exercise(fitnesses(0.3), {}).inside_noise == ("none",)
    assert recorded_exercise(fitnesses(0.0), {}).inside_noise == ("big", "none")
    assert "big and none (no two configurations that differ only in one of them" in recorded_exercise(fitnesses(0.0), {}).sentences[0]


def test_nothing_is_inside_a_noise_that_is_not_known() -> None:
    unknown = [replace(each, fitness_stderr=None) for each in fitnesses(0.0)]
    assert recorded_exercise(unknown, {}).inside_noise == ()


def test_configurations_that_differ_in_two_parameters_say_nothing() -> None:
    apart = [line("g0-c0", {"a": 0, "b": 0}, 0.5), line("g0-c1", {"a": 1, "b": 1}, 0.5)]
    assert recorded_exercise(apart, {}) == ExerciseRecord()


CHAT: dict[str, Any] = {
    "services": {"llm": {"kind": "vllm", "model": "m", "max_model_len": 768, "max_num_seqs": 8}},
    "parameters": {
        "cache": {"target": "llm.extra_args.kv-cache-memory-bytes", "values": [24_330_240, 95_109_120]}, "context": {"target": "llm.max_model_len", "values": [768, 1024]},
        "sequences": {"target": "llm.max_num_seqs", "values": [2, 8]}, "prefixes": {"target": "llm.enable_prefix_caching", "values": [True, False]},
    },
}  # fmt: skip
TRIAL = {
    "sessions": {"planned": 18}, "llm.kv_cache_peak_pct": 40.0, "llm.kv_cache_tokens": 4128, "llm.working_set_pct": 46.0, "llm.prefix_hit_pct": 88.0, "llm.preemptions": 0,
    "llm.longest_context_tokens": 677, "requests_at_once": {"llm": 5},
}  # fmt: skip
"""Metrics of the largest cache in the trial of issue 31."""


def trial(number: int, params: dict[str, Any], **change: Any) -> EvaluationRecord:
    return line(f"g0-c{number}", {"cache": 95_109_120, "context": 768, "sequences": 8, "prefixes": True} | params, 0.5, metrics=TRIAL | change)


def test_conversations_that_fill_the_smallest_cache_exercise_its_size() -> None:
    small = trial(1, {"cache": 24_330_240}, **{"llm.kv_cache_tokens": 1056, "llm.working_set_pct": 180.0, "llm.prefix_hit_pct": 62.0})
    found = {name for record in recorded_exercise([trial(0, {}), small], CHAT).unexercised for name in record.parameters}
    assert found == {"context", "sequences"}
    alone = recorded_exercise([trial(0, {})], CHAT)
    assert [record.text for record in alone.unexercised] == [
        "working set 46 % of the KV cache (4,128 tokens or more): cache could not matter here",
        "longest prompt with its answer 677 of 768 tokens: context could not matter here",
        "at most 5 of 8 sequences at once: sequences could not matter here",
    ]


def test_running_requests_alone_do_not_judge_a_cache_of_sessions() -> None:
    unknown = trial(0, {}, **{"llm.working_set_pct": None, "llm.kv_cache_peak_pct": 0.2})
    assert "cache" not in {name for record in recorded_exercise([unknown], CHAT).unexercised for name in record.parameters}


def test_a_batch_of_two_was_exercised_by_five_requests_at_once() -> None:
    found = recorded_exercise([trial(0, {}), trial(1, {"sequences": 2})], CHAT)
    assert "sequences" not in {name for record in found.unexercised for name in record.parameters}
