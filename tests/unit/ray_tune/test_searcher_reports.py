"""What trials report to a search of R-Zero, driven by hand: no Ray runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from tests.support.searches import search_of
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.search_length import UNLIMITED, wanted_evaluations
from tune_gpu.rzero import RZeroSearch
from tune_gpu.search.tournament import Result


def test_a_metric_that_is_no_number_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    search = search_of()
    assert [search.read({"score": value}) for value in ("0.5", "0.6", math.nan, np.float32(0.5))] == [
        *[Result("failed", n_windows=1)] * 3, Result("ok", 0.5, n_windows=1)]
    assert [record.getMessage() for record in caplog.records] == ["score was reported as '0.5', which is not a number. A trial whose last report has no number counts as failed."]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"score": 2.0}, Result("ok", 2.0, n_windows=1)),
        ({"score": 2, "stderr": 0.1, "n_windows": 3}, Result("ok", 2.0, 0.1, 3)),
        ({"score": 2.0, "stderr": math.nan}, Result("ok", 2.0, n_windows=1)),
        ({"score": 2.0, "stderr": -1.0, "n_windows": -2}, Result("ok", 2.0, n_windows=1)),
        ({"score": 2.0, "stderr": 1e155, "n_windows": 0.5}, Result("ok", 2.0, n_windows=1)),
        ({"score": 10**400}, Result("failed", n_windows=1)),
        ({"score": math.nan}, Result("failed", n_windows=1)),
        ({"score": math.inf, "violation": 3.0}, Result("failed", n_windows=1, violation=3.0)),
        ({"score": math.nan, "status": "ok", "violation": math.nan}, Result("infeasible", n_windows=1)),
        ({"score": math.nan, "status": "TERMINATED"}, Result("failed", n_windows=1)),
        ({"score": 5.0, "status": "infeasible", "violation": 1.0}, Result("infeasible", n_windows=1, violation=1.0)),
        ({"score": None, "status": "failed", "transient": True}, Result("failed", n_windows=1, transient=True)),
        ({"other": 1.0}, Result("failed", n_windows=1)),
        ({"score": "2.0"}, Result("failed", n_windows=1)),
    ],
)
def test_a_report_is_read_as_a_result(report: dict[str, Any], expected: Result) -> None:
    assert search_of().read(report) == expected


def test_the_smallest_is_the_fittest_in_mode_min() -> None:
    assert search_of(mode="min").read({"score": 2.0}).fitness == -2.0


def suggestions(search: RZeroSearch) -> int:
    seen = 0
    while (suggestion := search.suggest(f"t{seen}")) != "FINISHED":
        assert isinstance(suggestion, dict)
        search.on_trial_complete(f"t{seen}", {"score": float(seen)})
        seen += 1
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_what_a_user_gets_without_settings_is_the_guided_search(seed: int) -> None:
    """One of 10,000 configurations is the best: 60 draws at random find it in one search of 170."""
    search = RZeroSearch({name: list(range(10)) for name in "abcd"}, "loss", "min", seed=seed)
    search.set_search_properties("loss", "min", {}, num_samples=60)
    losses = []
    for number in range(60):
        given = search.suggest(f"t{number}")
        assert isinstance(given, dict)
        losses.append(sum((value - 3.0) ** 2 for value in given.values()))
        search.on_trial_complete(f"t{number}", {"loss": losses[-1]})
    assert min(losses) == 0.0


@pytest.mark.parametrize(("num_samples", "expected"), [(-1, 14), (5, 14), (30, 30)])
def test_a_search_is_as_long_as_tune_says_unless_settings_say_so(num_samples: int, expected: int) -> None:
    space = {"x": list(range(20)), "y": list(range(20))}
    search = RZeroSearch(space, "score", "max")
    assert search.set_search_properties("score", "max", {}, num_samples=num_samples)
    assert suggestions(search) == expected
    settled = RZeroSearch(space, "score", "max", settings=SearchSettings(generations=2))
    settled.set_search_properties("score", "max", {}, num_samples=num_samples)
    assert suggestions(settled) == 6


@pytest.mark.parametrize(("num_samples", "time_budget_s", "expected"), [
    (20, None, 20), (20, 60.0, 20), (None, None, None), (-1, None, None), (UNLIMITED, None, None), (UNLIMITED, 60.0, UNLIMITED)])
def test_without_num_samples_the_time_decides_and_else_the_search(
    num_samples: int | None, time_budget_s: float | None, expected: int | None,
) -> None:
    assert wanted_evaluations(num_samples, time_budget_s) == expected


def test_a_search_that_tune_made_longer_is_restored_as_long(tmp_path: Path) -> None:
    space = {"x": list(range(20)), "y": list(range(20))}
    search = RZeroSearch(space, "score", "max")
    search.set_search_properties("score", "max", {}, num_samples=30)
    for number in range(20):
        search.suggest(f"t{number}")
        search.on_trial_complete(f"t{number}", {"score": float(number)})
    search.save(str(tmp_path / "searcher"))
    later = RZeroSearch(space, "score", "max")
    later.restore(str(tmp_path / "searcher"))
    assert suggestions(later) == suggestions(search) == 10


@pytest.mark.parametrize("algorithm", ["rzero", "classic"])
def test_a_trial_that_raises_twice_has_failed(algorithm: str) -> None:
    search = RZeroSearch({"x": list(range(8))}, "score", "max", settings=SearchSettings(algorithm=algorithm, generations=20, elites=0))
    tried: list[int] = []
    while isinstance(given := search.suggest(f"t{len(tried)}"), dict):
        raises = given["x"] == 6
        search.on_trial_complete(f"t{len(tried)}", None if raises else {"score": given["x"] % 4}, error=raises)
        tried.append(given["x"])
    assert tried.count(6) == 2
    assert {*tried} == {*range(8)}
    assert search.tournament.ended_because == "space exhausted"


def test_a_raised_trials_result_counts_when_tune_runs_it_again(tmp_path: Path) -> None:
    search = search_of()
    given = search.suggest("t0")
    assert isinstance(given, dict)
    search.on_trial_complete("t0", error=True)
    assert search.tournament.best() is None
    search.save(str(tmp_path / "searcher"))
    later = search_of()
    later.restore(str(tmp_path / "searcher"))
    for resumed in (search, later):
        resumed.on_trial_complete("t0", {"score": 3.0})
        resumed.on_trial_complete("t0", {"score": 4.0})
        best = resumed.tournament.best()
        assert best is not None
        assert (best.params, best.fitness) == (given, 3.0)


def test_a_paused_trial_that_is_stopped_has_its_last_report() -> None:
    """HyperBand does so, and then hands over no result."""
    search = search_of()
    search.suggest("t0")
    for score in (1.0, 2.0):
        search.on_trial_result("t0", {"score": score})
    search.on_trial_result("stranger", {"score": 9.0})
    search.on_trial_complete("t0")
    assert [(result.status, result.fitness) for _, result in search.tournament.history] == [("ok", 2.0)]
    search.suggest("t1")
    search.on_trial_result("t1", {"score": 1.0})
    search.on_trial_complete("t1", error=True)
    assert search.tournament.history[1][1] == Result("failed", transient=True), "what it had reached is not its result if it raised"


def test_a_points_missing_values_are_drawn_and_constants_left_to_tune() -> None:
    points = [{"x": 3}, {"mode": "b"}]
    first = [search_of(points_to_evaluate=points, seed=1).suggest("t0") for _ in range(2)]
    assert first[0] == first[1]
    assert isinstance(first[0], dict)
    assert first[0]["x"] == 3
    search = RZeroSearch(metric="score", mode="max", points_to_evaluate=[{"x": 2, "fixed": 7}])
    search.set_search_properties(None, None, {"x": tune.choice([1, 2, 3]), "fixed": 7})
    assert search.suggest("t0") == {"x": 2}


@pytest.mark.parametrize("point", [{"model": {"net": {"depth": 2}}, "x": 1}, {"model/net": {"depth": 2}, "x": 1}])
@pytest.mark.parametrize("rewarded", [False, True])
@pytest.mark.parametrize("of_tune", [False, True])
def test_a_point_may_be_nested_and_so_may_its_values(of_tune: bool, rewarded: bool, point: dict[str, Any]) -> None:
    space = {"model": {"net": tune.choice([{"depth": 1}, {"depth": 2}])}, "x": tune.choice([1, 2])}
    search = search_of(space=None if of_tune else space, points_to_evaluate=[point], evaluated_rewards=[9.0] if rewarded else None)
    if of_tune:
        assert search.set_search_properties(None, None, space | {"fixed": {"a": 1}})
    first = search.suggest("t0")
    best = search.tournament.best()
    wanted = {"model": {"net": {"depth": 2}}, "x": 1}
    assert best and best.params == {"model/net": {"depth": 2}, "x": 1} if rewarded else first == wanted


def test_a_space_of_tunes_is_the_same_in_every_experiment_of_a_search() -> None:
    search = RZeroSearch(metric="score", mode="max")
    assert search.set_search_properties(None, None, {"x": tune.choice([1, 2])})
    assert search.set_search_properties(None, None, {"x": tune.choice([1, 2])})
    with pytest.raises(UserError, match="in which this search began"):
        search.set_search_properties(None, None, {"x": tune.choice([1, 3])})


def test_results_of_trials_of_others_are_ignored() -> None:
    search = search_of()
    search.on_trial_complete("stranger", {"score": 1.0})
    assert search.tournament.history == []




