"""What becomes of a run whose search lives on a cluster (`ray://`), with Tune played at its seam."""

from __future__ import annotations

import json
import queue
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from tests.ray.noop import AtOnceTrainable
from tests.ray.noop_run import experiment
from tests.support.made_run import line
from tune_gpu.common.failures import Failure
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.evaluation.record import record_of
from tune_gpu.evaluation.retries import LOST
from tune_gpu.experiment import run as experiments
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.run import Experiment
from tune_gpu.ray_tune import client as ray_client
from tune_gpu.ray_tune.client import ResultForwarder
from tune_gpu.ray_tune.same_failure import StopOnSameFailure
from tune_gpu.rzero import RZeroSearch
from tune_gpu.search.tournament import Candidate
from tune_gpu.services.start_failures import explain_exit

PLACES, SEED = 4, 0


class PlayedQueue(queue.SimpleQueue[Any]):
    """Ray's, within one process."""

    def __init__(self, **_options: Any) -> None:
        super().__init__()

    def put(self, item: Any, *_rest: Any, **_named: Any) -> None:
        super().put(cloudpickle.loads(cloudpickle.dumps(item)))  # as to another machine

    def shutdown(self) -> None: ...


class PlayedTuner:
    """Keeps so many trials in flight, and asks in vain when there is nothing to propose yet."""

    def __init__(self, search: RZeroSearch, forwarder: ResultForwarder, stopper: StopOnSameFailure | None = None, failure: Failure | None = None) -> None:
        self.search, self.forwarder, self.begun = search, forwarder, 0
        self.stopper, self.failure = stopper, failure
        self.running: list[Any] = []
        self.rng = random.Random(SEED)

    def fit(self) -> None:
        while self._fill() or self.running:
            trial = self.running.pop(self.rng.randrange(len(self.running)))
            candidate = trial.config["candidate"]
            trial.last_result = {**self._report(candidate), "done": True}
            if self.stopper is not None:
                self.stopper(trial.trial_id, trial.last_result)
            self.search.on_trial_complete(trial.trial_id, trial.last_result)
            self.forwarder.on_trial_complete(1, [], trial)
            if self.stopper is not None and self.stopper.stop_all():
                break
        self.forwarder.on_experiment_end([])

    def _report(self, candidate: dict[str, Any]) -> dict[str, Any]:
        if self.failure is not None:
            measured = Measurement.failed(self.failure, "cuda")
            return record_of(Candidate(**candidate), measured, started_at="", wall_s=1.0).report()
        fitness = 1.0 / (1.0 + candidate["params"]["x"])
        made = line(candidate["candidate_id"], candidate["params"], fitness, fitness_stderr=0.2, n_windows=2).dump() | candidate
        return {"fitness": fitness, "stderr": 0.2, "n_windows": 2, "line_json": json.dumps(made)}

    def _fill(self) -> bool:
        begun = self.begun
        while len(self.running) < PLACES and isinstance(suggested := self.search.suggest(f"t{self.begun}"), dict):
            trial = SimpleNamespace(trial_id=f"t{self.begun}", config=suggested)
            self.running.append(trial)
            self.begun += 1
            self.forwarder.on_trial_start(1, [], trial)
        return self.begun > begun


def test_a_search_that_has_ended_on_the_cluster_has_ended_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it was asked in vain is in no line: from the lines alone one proposal more would follow, and the run pass for interrupted."""
    settings = ["search.algorithm=rzero", "search.asynchronous=true", "search.generations=6", "search.initial=2", f"search.seed={SEED}"]
    space = f"x={{target: vllm.max_num_seqs, values: {list(range(1, 11))}}}"
    run = experiment(tmp_path, AtOnceTrainable, "cuda", PLACES, *settings, parameter=space)
    monkeypatch.setattr(experiments, "through_client", lambda: True)
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)

    def tuner(search: RZeroSearch, callbacks: list[ResultForwarder]) -> PlayedTuner:
        monkeypatch.setattr(ray_client, "calling_controller", lambda: SimpleNamespace(search_alg=search))
        return PlayedTuner(search, callbacks[0])

    monkeypatch.setattr(run, "_tuner", tuner)
    summary = run.run()
    assert summary.ended == "space exhausted"
    assert summary.best is not None
    assert summary.best.params == {"x": 1}


def test_a_search_whose_candidates_fail_alike_on_the_cluster_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stopper of the cluster is a copy, which this process's own never hears of; both come to the same."""
    run = experiment(tmp_path, AtOnceTrainable, "cuda", PLACES, "search.generations=6", "search.initial=4")
    monkeypatch.setattr(experiments, "through_client", lambda: True)
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)
    flag = explain_exit("vllm", "vllm serve: error: unrecognized arguments: --foo", 2)
    tuners = []

    def tuner(search: RZeroSearch, callbacks: list[ResultForwarder]) -> PlayedTuner:
        search = cloudpickle.loads(cloudpickle.dumps(search))
        monkeypatch.setattr(ray_client, "calling_controller", lambda: SimpleNamespace(search_alg=search))
        tuners.append(PlayedTuner(search, callbacks[0], cloudpickle.loads(cloudpickle.dumps(StopOnSameFailure(run.results.failures))), flag))
        return tuners[0]

    monkeypatch.setattr(run, "_tuner", tuner)
    summary = run.run()
    assert (summary.ended, summary.counts) == ("same failure", {"failed": 2})
    assert "unrecognized arguments: --foo" in (summary.ended_reason or "")
    assert tuners[0].begun == 4, "several were in flight"
    again = Experiment(run.config, run.choice, run.folder, run.progress, Refusals())
    monkeypatch.setattr(again, "_tuner", lambda *_: pytest.fail("nothing is measured again"))
    resumed = again.run()
    assert (resumed.ended, resumed.ended_reason, resumed.n_evaluations) == (summary.ended, summary.ended_reason, 2)


def test_a_trial_that_the_cluster_lost_comes_with_its_failed_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)
    candidate, ended = Candidate("g0-c0", 0, "initial", {"x": 1}), []
    config = {"candidate": vars(candidate), "retries": [LOST.dump()]}
    with ray_client.forward_results(lambda _: None, lambda *found: ended.append(found), lambda _: None, lambda _: None) as forwarder:
        forwarder.on_trial_error(1, [], SimpleNamespace(config=config))
    assert ended == [(candidate, None, [LOST])]


def test_an_error_of_the_driver_is_raised_where_the_results_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)

    def full(_candidate: Candidate) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), ray_client.forward_results(full, lambda *_: None, lambda _: None, lambda _: None) as forwarder:
        forwarder.on_trial_start(1, [], SimpleNamespace(config={"candidate": vars(Candidate("g0-c0", 0, "initial", {"x": 1}))}))
