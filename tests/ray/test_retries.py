"""Only what can pass is tried again, through Ray's own failure handling; number and cause are in the artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import ray

from tests.ray.noop import LOG, ScriptedTrainable, noted
from tests.ray.noop_run import experiment
from tune_gpu.artifacts.records.evaluation import EvaluationRecord

pytestmark = pytest.mark.ray

SCRIPTS = [
    "port_conflict,ok",
    "service_lost,measurement_invalid,port_conflict,ok",
    "startup_timeout,startup_timeout,ok",
    "startup_oom,ok",
    "bug,ok",
    "die,ok",
    "die,die,die,ok",
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EvaluationRecord]]:
    """One run in a local Ray: each candidate's script, and the line that it came to."""
    folder = tmp_path_factory.mktemp("retries")
    (folder / "attempts").mkdir()
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_GLOBAL_CHECKPOINT_S="0", RAY_AIR_NEW_OUTPUT="0")
    variables = {LOG: str(folder / "attempts")}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": variables})
    run = experiment(
        folder,
        ScriptedTrainable,
        "cpu",
        0,
        f"search.initial={len(SCRIPTS)}",
        "ray.max_retries=2",
        "ray.max_concurrent_trials=2",
        parameter=f"script={{target: vllm.dtype, kind: categorical, values: {json.dumps(SCRIPTS)}}}",
    )
    run.run()
    assert [*run.folder.candidates()] == run.results.lines, "what the search heard is what is on disk"
    found = {line.params["script"]: line for line in run.results.lines}
    for script, line in found.items():
        attempts = noted(folder / "attempts" / script)
        assert line.n_retries == len(line.retries) == len(attempts) - 1
        assert len({attempt["pid"] for attempt in attempts}) == len(attempts), "each attempt has an actor of its own"
    yield found
    ray.shutdown()


def causes(line: EvaluationRecord) -> list[str]:
    return [cause.kind for cause in line.retries]


def test_a_second_try_is_measured_and_records_the_first_failure(lines: dict[str, EvaluationRecord]) -> None:
    line = lines["port_conflict,ok"]
    assert (line.status, causes(line)) == ("ok", ["port_conflict"])
    assert line.retries[0].message == "told to: port_conflict"
    assert (line.wall_s or 0) >= (line.retries[0].wall_s or 0) >= 0, "what the first try took is in what the candidate took"


def test_after_the_last_try_the_line_has_the_kind_of_the_last_failure(lines: dict[str, EvaluationRecord]) -> None:
    line = lines["service_lost,measurement_invalid,port_conflict,ok"]
    assert (line.status, line.failure and line.failure.kind, causes(line)) == ("failed", "port_conflict", ["service_lost", "measurement_invalid"])


def test_a_start_that_timed_out_is_tried_again_once(lines: dict[str, EvaluationRecord]) -> None:
    line = lines["startup_timeout,startup_timeout,ok"]
    assert (line.status, line.failure and line.failure.kind, causes(line)) == ("failed", "startup_timeout", ["startup_timeout"])


@pytest.mark.parametrize(("script", "kind"), [("startup_oom,ok", "startup_oom"), ("bug,ok", "measurement_invalid")])
def test_what_is_deterministic_is_never_tried_again(lines: dict[str, EvaluationRecord], script: str, kind: str) -> None:
    line = lines[script]
    assert (line.status, line.failure and line.failure.kind, causes(line)) == ("failed", kind, [])


def test_a_process_that_keeps_dying_is_retried_then_recorded_as_lost(lines: dict[str, EvaluationRecord]) -> None:
    assert (lines["die,ok"].status, causes(lines["die,ok"])) == ("ok", ["service_lost"])
    line = lines["die,die,die,ok"]
    assert (line.status, line.failure and line.failure.kind, causes(line)) == ("failed", "service_lost", ["service_lost"] * 2)
    assert line.metrics == {}
