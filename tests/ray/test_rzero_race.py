"""Races between windows in a real local Ray, and the settings of Tune that a searcher must live with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune

from tune_gpu.config.schema import SearchSettings
from tune_gpu.rzero import RZeroScheduler, RZeroSearch

pytestmark = pytest.mark.ray

WINDOWS = 6
CLASSIC = SearchSettings(algorithm="classic", seed=2)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


class Windowed(tune.Trainable):
    """One noisy window a step; reports its mean so far with its standard error."""

    def setup(self, config: dict[str, Any]) -> None:
        self._windows: list[float] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self._windows = new_config, []
        return True

    def step(self) -> dict[str, Any]:
        noise = np.random.default_rng([self.config["x"], self.config["y"], len(self._windows)]).normal(0.0, 0.02)
        self._windows.append(-abs(self.config["x"] - 7) - 0.5 * self.config["y"] + noise)
        n = len(self._windows)
        stderr = float(np.std(self._windows, ddof=1) / n**0.5) if n > 1 else None
        return {"score": float(np.mean(self._windows)), "stderr": stderr, "n_windows": n, "done": n == WINDOWS}


class Flaky(tune.Trainable):
    """Loses its process the first time."""

    def step(self) -> dict[str, Any]:
        mark = Path(self.config["folder"]) / f"{self.config['x']}"
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return {"score": float(self.config["x"]), "done": True}


def fit(trainable: type[tune.Trainable], search: RZeroSearch, folder: Path, *, scheduler: RZeroScheduler | None = None,
        param_space: dict[str, Any] | None = None, max_failures: int = 0, reuse_actors: bool = True, **options: Any) -> tune.ResultGrid:
    return tune.Tuner(
        trainable, param_space=param_space,
        tune_config=tune.TuneConfig(**{"search_alg": search, "scheduler": scheduler, "num_samples": -1, "reuse_actors": reuse_actors} | options),
        run_config=tune.RunConfig(
            storage_path=str(folder), name="r", verbose=0, failure_config=tune.FailureConfig(max_failures=max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)),
    ).fit()


SPACE = {"x": list(range(10)), "y": [0, 1, 2]}


@pytest.mark.parametrize("parallel", [1, 2])
def test_losers_stop_early_and_the_same_configuration_wins(tmp_path: Path, parallel: int) -> None:
    whole, raced = (RZeroSearch(SPACE, "score", "max", settings=CLASSIC) for _ in range(2))
    fit(Windowed, whole, tmp_path / "whole", max_concurrent_trials=parallel)
    scheduler = RZeroScheduler(raced)
    fit(Windowed, raced, tmp_path / "raced", scheduler=scheduler, max_concurrent_trials=parallel)
    by_id = {candidate.candidate_id: result for candidate, result in raced.tournament.history}
    assert scheduler.stopped
    assert all(by_id[candidate_id].status == "ok" and 2 <= by_id[candidate_id].n_windows < WINDOWS for candidate_id in scheduler.stopped)
    assert all(result.n_windows == WINDOWS for candidate_id, result in by_id.items() if candidate_id not in scheduler.stopped)
    windows = [sum(result.n_windows for _, result in search.tournament.history) for search in (whole, raced)]
    assert windows[1] < windows[0] == 14 * WINDOWS
    best, sure = raced.tournament.best(), whole.tournament.best()
    assert best is not None
    assert sure is not None
    assert best.params == sure.params


def test_tunes_param_space_with_a_number_of_samples_and_a_concurrency(tmp_path: Path) -> None:
    search = RZeroSearch(settings=CLASSIC)
    space = {"x": tune.randint(0, 10), "y": tune.choice([0, 1, 2]), "fixed": "kept"}
    results = fit(Windowed, search, tmp_path, param_space=space, num_samples=5, max_concurrent_trials=2, metric="score", mode="max")
    assert len(results) == 5
    assert [(results[i].config or {})["fixed"] for i in range(5)] == ["kept"] * 5
    assert len(search.tournament.history) == 5


def test_a_retried_trial_counts_once(tmp_path: Path) -> None:
    search = RZeroSearch({"x": [1, 2, 3]}, "score", "max", settings=CLASSIC)
    results = fit(Flaky, search, tmp_path, param_space={"folder": str(tmp_path)}, max_failures=1, reuse_actors=False, max_concurrent_trials=1,
                  num_samples=2)
    assert not results.errors
    assert [result.status for _, result in search.tournament.history] == ["ok", "ok"]
