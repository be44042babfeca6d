"""R-Zero in a real local Ray, with anyone's trainable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from tune_gpu.config.schema import SearchSettings
from tune_gpu.rzero import RZeroSearch

pytestmark = pytest.mark.ray

SPACE: dict[str, list[Any]] = {"util": [0.40, 0.45, 0.50, 0.55, 0.60], "size": ["tiny", "base", "small"]}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def score(config: dict[str, Any]) -> float:
    return 1.0 - abs(config["util"] - 0.45) - 0.1 * SPACE["size"].index(config["size"])


class Toy(tune.Trainable):
    """Somebody else's trainable: reports one number."""

    def step(self) -> dict[str, Any]:
        return {"score": score(self.config), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True


class Fragile(Toy):
    """Cannot measure one size, and loses its process with another."""

    def step(self) -> dict[str, Any]:
        if self.config["size"] == "small":
            return {"score": math.nan, "status": "failed", "violation": 2.0, "done": True}
        if self.config["size"] == "base":
            raise RuntimeError("lost")
        return super().step()


class Line(Toy):
    """Reports its only parameter."""

    def step(self) -> dict[str, Any]:
        return {"score": self.config["x"], "done": True}


def fit(trainable: type[tune.Trainable], search: RZeroSearch, folder: Path, parallel: int = 1, samples: int = -1, name: str = "r") -> tune.ResultGrid:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=samples, max_concurrent_trials=parallel, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder), name=name, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
        ),
    ).fit()


def proposals(search: RZeroSearch) -> list[dict[str, Any]]:
    return [candidate.params for candidate, _ in sorted(search.tournament.history, key=lambda h: h[0].candidate_id)]


def test_anyones_trainable_is_searched_in_14_trials(tmp_path: Path) -> None:
    search = RZeroSearch(SPACE, metric="score", mode="max", seed=1, points_to_evaluate=[{"util": 0.5, "size": "base"}])
    results = fit(Toy, search, tmp_path)
    assert len(results) == 14
    assert proposals(search)[0] == {"util": 0.5, "size": "base"} or proposals(search)[1] == {"util": 0.5, "size": "base"}
    best = search.tournament.best()
    assert best is not None
    assert best.fitness == (results.get_best_result("score", "max").metrics or {})["score"] == pytest.approx(score(best.params))


def test_what_an_earlier_experiment_measured_is_not_tried_again(tmp_path: Path) -> None:
    earlier = RZeroSearch(SPACE, metric="score", mode="max", seed=1)
    fit(Toy, earlier, tmp_path)
    search = RZeroSearch(SPACE, metric="score", mode="max", seed=2)
    search.add_evaluated_trials(tune.ExperimentAnalysis(str(tmp_path / "r")), "score")
    results = fit(Toy, search, tmp_path / "later")
    assert len(results) == 1, "14 of the 15 are known"
    assert len({tuple(params.values()) for params in proposals(earlier) + proposals(search)}) == 15
    best = search.tournament.best()
    assert best is not None
    assert best.params == {"util": 0.45, "size": "tiny"}, "whichever experiment measured it"


def test_each_fit_makes_as_many_trials_as_num_samples_says(tmp_path: Path) -> None:
    """Tune tells a searcher that has its own space no number of samples."""
    search = RZeroSearch({"x": tune.uniform(0.0, 1.0)}, metric="score", mode="max")
    for number, wanted in enumerate([17, 3]):
        results = fit(Line, search, tmp_path, 2, wanted, f"r{number}")
        assert len(results) == wanted
    assert len(search.tournament.history) == 20


def measured_once_mended(config: dict[str, Any], mended: Path) -> None:
    """Until then one of the values raises."""
    if config["util"] == 0.5 and not mended.exists():
        raise RuntimeError("not mended")
    tune.report({"score": score(config)})


@pytest.mark.parametrize("how", ["resume_errored", "restart_errored"])
def test_tune_restores_a_search_and_measures_trials_that_had_raised(tmp_path: Path, how: str) -> None:
    """The search is in Tune's own space."""
    search = RZeroSearch(metric="score", mode="max", seed=1, points_to_evaluate=[{"util": 0.4}, {"util": 0.5, "size": "tiny"}])
    trainable = tune.with_parameters(measured_once_mended, mended=tmp_path / "mended")
    tuner = tune.Tuner(
        trainable,
        param_space={name: tune.choice(values) for name, values in SPACE.items()},
        tune_config=tune.TuneConfig(search_alg=search, num_samples=4, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="r", verbose=0),
    )
    assert len(tuner.fit().errors) >= 1
    assert {"util": 0.5, "size": "tiny"} not in [standing.params for standing in search.tournament.standings()]
    (tmp_path / "mended").touch()
    results = tune.Tuner.restore(str(tmp_path / "r"), trainable, resume_errored=how == "resume_errored", restart_errored=how == "restart_errored").fit()
    assert (len(results), len(results.errors)) == (4, 0)
    later = RZeroSearch(metric="score", mode="max")
    later.restore_from_dir(str(tmp_path / "r"))
    known = {standing.params["util"]: standing.fitness for standing in later.tournament.standings() if standing.params["size"] == "tiny"}
    assert known[0.5] == score({"util": 0.5, "size": "tiny"})


def test_side_by_side_proposes_the_same_as_one_by_one(tmp_path: Path) -> None:
    generations = SearchSettings(seed=4, asynchronous=False)  # else each proposal is made from whatever results are in
    alone, beside = (RZeroSearch(SPACE, metric="score", mode="max", settings=generations) for _ in range(2))
    fit(Toy, alone, tmp_path / "a")
    fit(Toy, beside, tmp_path / "b", parallel=4)
    assert proposals(alone) == proposals(beside)


def test_mode_min_looks_for_the_smallest(tmp_path: Path) -> None:
    search = RZeroSearch(SPACE, metric="score", mode="min", seed=0)
    results = fit(Toy, search, tmp_path)
    best = search.tournament.best()
    assert best is not None
    assert score(best.params) == pytest.approx(min((results[i].metrics or {})["score"] for i in range(len(results))))


def test_failed_and_lost_trials_do_not_stop_the_search(tmp_path: Path) -> None:
    search = RZeroSearch(SPACE, metric="score", mode="max", seed=0, settings=SearchSettings(seed=0, generations=4))
    fit(Fragile, search, tmp_path)
    outcomes = {candidate.params["size"]: (result.status, result.transient) for candidate, result in search.tournament.history}
    assert outcomes["small"] == ("failed", False)
    assert outcomes["base"] == ("failed", True)
    best = search.tournament.best()
    assert best is not None
    assert best.params["size"] == "tiny"


def test_a_checkpoint_of_the_searcher_goes_on_with_what_was_in_flight(tmp_path: Path) -> None:
    whole = RZeroSearch(SPACE, metric="score", mode="max", seed=2)
    fit(Toy, whole, tmp_path)
    search = RZeroSearch(SPACE, metric="score", mode="max", seed=2)
    for number in range(6):
        known = search.suggest(f"t{number}")
        assert isinstance(known, dict)
        search.on_trial_complete(f"t{number}", {"score": score(known)})
    suggestion = search.suggest("t6")
    assert isinstance(suggestion, dict)
    search.save(str(tmp_path / "searcher"))
    later = RZeroSearch(SPACE, metric="score", mode="max", seed=2)
    later.restore(str(tmp_path / "searcher"))
    assert later.suggest("again") == suggestion, "what was in flight is suggested first"
    later.on_trial_complete("again", {"score": score(suggestion)})
    fit(Toy, later, tmp_path / "rest")
    assert proposals(later) == proposals(whole)


def test_it_never_answers_null_with_nothing_in_flight() -> None:
    """Tune would wait for ever, without a word."""
    search = RZeroSearch({"x": [1, 2]}, metric="score", mode="max")
    seen = 0
    while (suggestion := search.suggest(f"t{seen}")) != "FINISHED":
        assert isinstance(suggestion, dict)
        search.on_trial_complete(f"t{seen}", {"score": 1.0})
        seen += 1
    assert seen == 2
