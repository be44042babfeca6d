"""A run says which parameters its traffic could not show, and which moved nothing beyond the noise."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.made_run import line
from tests.support.runs import ARTIFACTS, INTERRUPTED, MISLEADING, OFF_ITS_FRONT, RUN, WHOLE
from tune_gpu.artifacts.reading import read_run
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


def test_configurations_that_differ_in_two_parameters_say_nothing() -> None:
    apart = [line("g0-c0", {"a": 0, "b": 0}, 0.5), line("g0-c1", {"a": 1, "b": 1}, 0.5)]
    assert recorded_exercise(apart, {}) == ExerciseRecord()
