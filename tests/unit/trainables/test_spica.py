"""The states of a trial: what each step reports, raises and publishes, with the evaluation played at its seam."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, cast

import pytest

from trainables.spica import Done, Idle, Measuring, Retrying, SpicaTrainable
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError, Status
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement, Score
from tune_gpu.services.deployment import Deployment

RETRYABLE = Failure(FailureKind.SERVICE_LOST, "vllm", Phase.LOAD, "it died")
FINAL = Failure(FailureKind.STARTUP_CRASH, "vllm", Phase.START, "no such flag")


class Played:
    """Does what a test says at its start and in each window: nothing, or an error that it raises."""

    def __init__(self) -> None:
        self.at_begin: Exception | None = None
        self.windows: list[Exception | None] = []
        self.calls: list[str] = []
        self.n_windows = 0

    def begin(self, deployment: Deployment) -> None:
        self.calls.append(f"begin {deployment.params['x']}")
        self.n_windows = 0
        if self.at_begin:
            raise self.at_begin

    def window(self) -> None:
        self.calls.append("window")
        if self.windows and (error := self.windows.pop(0)):
            raise error
        self.n_windows += 1

    def so_far(self) -> Measurement:
        return Measurement(Status.OK, "cpu", score=Score(0.5), n_windows=self.n_windows)

    def finish(self) -> Measurement:
        self.calls.append("finish")
        return self.so_far()

    def fail(self, failure: Failure) -> Measurement:
        self.calls.append("fail")
        return Measurement.failed(failure, "cpu")

    def close(self) -> None:
        self.calls.append("close")


def candidate(number: int) -> dict[str, Any]:
    return {"candidate": {"candidate_id": f"g0-c{number}", "generation": 0, "origin": "initial", "params": {"x": number}, "asked_after": 0}}


class Trial(SpicaTrainable):
    """One whose evaluation is played, and whose published lines are kept."""

    def setup(self, config: dict[str, Any], experiment: dict[str, Any] | None = None, device: str = "cpu") -> None:
        self.played, self.published = Played(), cast("list[str]", [])
        settings = load_config("spica_gpu_allocation", ["workload.windows=2", "ray.max_retries=1", "parameters.x={target: vllm.max_num_seqs, low: 0, high: 9}"], None)
        super().setup(config, experiment=asdict(settings), device="cpu")

    def new_evaluator(self, observe: Callable[..., None]) -> Evaluator:
        return cast(Evaluator, self.played)

    def _publish(self, record: EvaluationRecord) -> None:
        self.published.append(f"{record.candidate_id} {record.status} {record.n_windows}")
        super()._publish(record)


@pytest.fixture
def trial() -> Iterator[Trial]:
    made = Trial(config=candidate(0))
    yield made
    made.cleanup()


def test_an_evaluation_goes_from_idle_over_each_window_to_done(trial: Trial) -> None:
    assert trial._state == Idle()
    first = trial.step()
    assert isinstance(trial._state, Measuring)
    assert (trial._state.n_windows, "done" in first, first["n_windows"]) == (1, False, 1)
    assert trial.published == [], "a race may end it, or another window follow"
    last = trial.step()
    assert trial._state == Done()
    assert (last["done"], last["n_windows"], last["fitness"]) == (True, 2, 0.5)
    assert trial.published == ["g0-c0 ok 2"]
    assert trial.played.calls == ["begin 0", "window", "window", "finish"]


def test_a_trial_that_a_race_ended_is_published_when_the_next_begins(trial: Trial) -> None:
    trial.step()
    assert trial.reset_config(candidate(1))
    assert (trial._state, trial.published) == (Idle(), ["g0-c0 ok 1"])
    trial.step()
    trial.cleanup()
    assert trial.published == ["g0-c0 ok 1", "g0-c1 ok 1"]
    trial.cleanup()
    assert len(trial.published) == 2, "each once"


def test_a_failure_that_is_final_is_the_result(trial: Trial) -> None:
    trial.played.at_begin = ServiceError(FINAL)
    report = trial.step()
    assert (report["done"], report["status"], trial._state) == (True, "failed", Done())
    assert "retry_json" not in report
    assert trial.published == ["g0-c0 failed 0"]
    assert trial.reset_config(candidate(1))
    trial.played.at_begin = None
    assert trial.step()["status"] == "ok", "the actor serves the next trial"


@pytest.mark.parametrize("window", [0, 1])
def test_a_failure_to_retry_is_reported_and_then_raised(window: int, trial: Trial) -> None:
    trial.played.windows = [*[None] * window, ServiceError(RETRYABLE)]
    report = [trial.step() for _ in range(window + 1)][-1]
    assert "done" not in report
    retry = json.loads(report["retry_json"])
    assert (retry["attempt"], retry["cause"]["kind"]) == (0, "service_lost")
    assert isinstance(trial._state, Retrying)
    with pytest.raises(RuntimeError, match="service_lost while in load: it died; retrying"):
        trial.step()
    assert trial.published == []
    trial.cleanup()
    assert trial.published == ["g0-c0 failed 0"]


def test_the_attempts_before_are_counted_against_the_retries(trial: Trial) -> None:
    cause = {"kind": "service_lost", "service": "vllm", "phase": "load", "message": "it died", "wall_s": 2.0}
    trial.reset_config(candidate(0) | {"retries": [cause]})
    trial.played.windows = [ServiceError(RETRYABLE)]
    report = trial.step()
    assert (report["done"], trial._state) == (True, Done())
    assert json.loads(report["line_json"])["retries"] == [cause]


@pytest.mark.parametrize(("error", "kind"), [(UserError("no such model"), "startup_crash"), (ZeroDivisionError("ours"), "measurement_invalid")])
def test_an_error_that_is_not_a_services_is_recorded(error: Exception, kind: str, trial: Trial) -> None:
    trial.played.windows = [error]
    report = trial.step()
    assert (report["done"], json.loads(report["line_json"])["failure"]["kind"]) == (True, kind)
