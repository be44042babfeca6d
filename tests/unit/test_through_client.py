"""What becomes of a run whose search lives on a cluster (`ray://`), with Tune played at its seam."""

from __future__ import annotations

import json
import queue
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.made_run import line
from tests.ray.noop import AtOnceTrainable
from tests.ray.noop_run import experiment
from tune_gpu import experiment as experiments
from tune_gpu import ray_client
from tune_gpu.ray_client import Courier
from tune_gpu.rzero import RZeroSearch

PLACES, SEED = 4, 0


class PlayedQueue(queue.SimpleQueue[Any]):
    """Ray's, within one process."""

    def __init__(self, **_options: Any) -> None:
        super().__init__()

    def shutdown(self) -> None: ...


class PlayedTuner:
    """Keeps so many trials in flight, and asks in vain when there is nothing to propose yet."""

    def __init__(self, search: RZeroSearch, courier: Courier) -> None:
        self.search, self.courier, self.begun = search, courier, 0
        self.running: list[Any] = []
        self.rng = random.Random(SEED)

    def fit(self) -> None:
        while self._fill() or self.running:
            trial = self.running.pop(self.rng.randrange(len(self.running)))
            candidate = trial.config["candidate"]
            fitness = 1.0 / (1.0 + candidate["params"]["x"])
            made = line(candidate["candidate_id"], candidate["params"], fitness, fitness_stderr=0.2, n_windows=2) | candidate
            trial.last_result = {"fitness": fitness, "stderr": 0.2, "n_windows": 2, "line_json": json.dumps(made)}
            self.search.on_trial_complete(trial.trial_id, trial.last_result)
            self.courier.on_trial_complete(1, [], trial)
        self.courier.on_experiment_end([])

    def _fill(self) -> bool:
        begun = self.begun
        while len(self.running) < PLACES and isinstance(suggested := self.search.suggest(f"t{self.begun}"), dict):
            trial = SimpleNamespace(trial_id=f"t{self.begun}", config=suggested)
            self.running.append(trial)
            self.begun += 1
            self.courier.on_trial_start(1, [], trial)
        return self.begun > begun


def test_a_search_that_has_ended_on_the_cluster_has_ended_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it was asked in vain is in no line: from the lines alone one proposal more would follow, and the run pass for interrupted."""
    settings = ["search.algorithm=rzero", "search.asynchronous=true", "search.generations=6", "search.initial=2", f"search.seed={SEED}"]
    space = f"x={{target: vllm.max_num_seqs, values: {list(range(1, 11))}}}"
    run = experiment(tmp_path, AtOnceTrainable, "cuda", PLACES, *settings, parameter=space)
    monkeypatch.setattr(experiments, "through_client", lambda: True)
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)

    def tuner(search: RZeroSearch, callbacks: list[Courier]) -> PlayedTuner:
        monkeypatch.setattr(ray_client, "among_callers", lambda _kind: SimpleNamespace(search_alg=search))
        return PlayedTuner(search, callbacks[0])

    monkeypatch.setattr(run, "_tuner", tuner)
    summary = run.run()
    assert summary["ended"] == "space exhausted"
    assert summary["best"]["params"] == {"x": 1}
