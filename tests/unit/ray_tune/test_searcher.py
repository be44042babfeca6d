"""R-Zero's shell for Ray Tune, driven by hand: no Ray runs."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle, tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Repeater, Searcher
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.utils.util import flatten_dict

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.ray_tune.callbacks import RetryTracker
from tune_gpu.ray_tune.saved_trials import as_kept
from tune_gpu.ray_tune.search_length import UNLIMITED, wanted_evaluations
from tune_gpu.rzero import RZeroScheduler, RZeroSearch
from tune_gpu.search.tournament import Result

SPACE = {"x": [1, 2, 3, 4, 5, 6], "mode": ["a", "b"]}
CLASSIC = SearchSettings(algorithm="classic", seed=0)


def search_of(**changes: Any) -> RZeroSearch:
    options: dict[str, Any] = {"space": SPACE, "metric": "score", "mode": "max", "settings": CLASSIC}
    return RZeroSearch(**options | changes)


# What may vary ----------------------------------------------------------------------------------------------------------------------


def test_tunes_own_domains_become_the_space() -> None:
    search = RZeroSearch(metric="score", mode="max", settings=CLASSIC)
    assert search.set_search_properties(None, None, {
        "rate": tune.loguniform(1e-4, 1e-1), "share": tune.quniform(0.3, 0.7, 0.1), "units": tune.randint(1, 5), "even": tune.qrandint(2, 8, 2),
        "size": tune.choice(["tiny", "base"]), "beam": tune.choice([1, 2, 5]), "model": {"depth": tune.uniform(0.0, 1.0)}, "fixed": 7,
    })
    for number in range(6):
        given = search.suggest(f"t{number}")
        assert isinstance(given, dict)
        assert set(given) == {"rate", "share", "units", "even", "size", "beam", "model"}
        assert 1e-4 <= given["rate"] <= 1e-1
        assert given["share"] in (0.3, 0.4, 0.5, 0.6, 0.7)
        assert given["units"] in (1, 2, 3, 4), "the upper end of tune.randint is not reached"
        assert given["even"] in (2, 4, 6, 8)
        assert given["size"] in ("tiny", "base")
        assert 0.0 <= given["model"]["depth"] <= 1.0
        search.on_trial_complete(f"t{number}", {"score": number})


def test_numbers_of_a_choice_are_ordered_and_names_are_not() -> None:
    search = RZeroSearch({"n": tune.choice([1, 2, 5]), "m": tune.choice(["b", "a"]), "p": ParameterSpec(target="", low=0, high=1)}, "score", "max")
    parameters = search.tournament._space.parameters
    assert (parameters["n"].ordered, parameters["m"].ordered, parameters["p"].values) == (True, False, None)


def units(width: int) -> int:
    return width


@pytest.mark.parametrize(
    ("domain", "given"),
    [
        (tune.choice([[64, 64], [128, 128]]), "[[128, 128], [64, 64]]"),
        (tune.choice([{"depth": 1}, {"depth": 2}]), "[{'depth': 1}, {'depth': 2}]"),
        (tune.choice([(1, 2), (3, 4)]), "[(1, 2), (3, 4)]"),
        (tune.choice([int, str]), "[<class 'int'>, <class 'str'>]"),
        (tune.choice([units, None]), f"[{units!r}, None]"),
        (tune.choice(list(np.arange(3))), "[0, 1, 2]"),
        (tune.choice([np.float64(0.5), np.str_("a"), np.bool_(True)]), "['a', 0.5, True]"),
        (tune.choice([1, 1, 2]), "[1, 2]"),
        (tune.choice([1, 1.0, True]), "[1, 1.0, True]"),
        (tune.uniform(0, 0), "[0.0]"),
        (tune.quniform(0, 2e-13, 1e-13), "[0.0, 1e-13, 2e-13]"),
    ],
)
@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_each_value_of_tunes_domains_is_suggested_and_outlives_a_restore(domain: Any, given: str, algorithm: str, tmp_path: Path) -> None:
    def search_of_it() -> RZeroSearch:
        return search_of(space={"x": domain}, settings=SearchSettings(algorithm=algorithm, elites=0, seed=0))

    search = search_of_it()
    seen: list[Any] = []
    while isinstance(suggested := search.suggest(f"t{len(seen)}"), dict):
        search.save(str(tmp_path / "s"))
        search = search_of_it()
        search.restore(str(tmp_path / "s"))
        assert repr(search.suggest(f"t{len(seen)}")) == repr(suggested), "it was in flight"
        seen.append(suggested["x"])
        search.on_trial_complete(f"t{len(seen) - 1}", {"score": 1.0})
    assert str(sorted(seen, key=repr)) == given


@pytest.mark.parametrize(
    "domain", [tune.randint(0, 2**31), tune.randint(0, 2**62), tune.quniform(0, 1, 1e-6), tune.lograndint(1, 10**9), tune.qrandint(0, 10**9, 5)])
@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_a_long_range_is_searched_in_milliseconds_and_in_little_memory(domain: Any, algorithm: str, tmp_path: Path) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    search = search_of(space={"x": domain, "y": tune.uniform(0.0, 1.0)}, settings=SearchSettings(algorithm=algorithm, seed=0))
    seen: list[dict[str, Any]] = []
    while isinstance(suggested := search.suggest(f"t{len(seen)}"), dict):
        seen.append(suggested)
        search.on_trial_complete(f"t{len(seen) - 1}", {"score": suggested["y"]})
    search.save(str(tmp_path / "s"))
    took, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 14
    assert took < 10.0, "a range that is written out takes minutes"
    assert most < 100 * 2**20
    later = search_of(space={"x": domain, "y": tune.uniform(0.0, 1.0)}, settings=SearchSettings(algorithm=algorithm, seed=0))
    later.restore(str(tmp_path / "s"))
    assert [repr(candidate) for candidate, _ in later.tournament.history] == [repr(candidate) for candidate, _ in search.tournament.history]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_a_long_range_is_found_to_the_step(seed: int) -> None:
    search = RZeroSearch({"n": tune.randint(0, 5000), "m": tune.lograndint(1, 10_000)}, "score", "max", seed=seed)
    search.set_search_properties("score", "max", {}, num_samples=60)
    seen: list[dict[str, Any]] = []
    while isinstance(given := search.suggest(f"t{len(seen)}"), dict):
        seen.append(given)
        search.on_trial_complete(f"t{len(seen) - 1}", {"score": -abs(given["n"] - 1234) / 5000 - abs(math.log(given["m"] / 20))})
    assert min(abs(given["n"] - 1234) for given in seen) <= 25
    assert min(abs(given["m"] - 20) for given in seen) <= 1
    assert len({json.dumps(given) for given in seen}) == len(seen) - 1, "only the leader twice, to learn whether there is noise"


def test_a_point_that_a_calculation_has_rounded_is_taken() -> None:
    search = search_of(space={"x": tune.quniform(0, 1, 0.1)}, points_to_evaluate=[{"x": 0.1 * 3}])
    assert search.suggest("t0") == {"x": 0.3}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"x": tune.choice([tune.uniform(0, 1), 2])}, "x: a domain inside tune.choice"),
        ({"x": tune.choice([{"a": tune.uniform(0, 1)}, {"a": 2}])}, "x: a domain inside tune.choice"),
        ({"x": tune.choice([[tune.uniform(0, 1)], [2]])}, "x: a domain inside tune.choice"),
        ({"x": tune.randn(0, 1)}, "x: Float with Normal"),
        ({"x": tune.qloguniform(0.1, 10, 0.1)}, "x: Float with LogUniform"),
        ({"x": tune.sample_from(lambda _: 1)}, "x: Function"),
        ({"x": tune.grid_search([1, 2])}, "x/grid_search"),
        ({"x": [[tune.uniform(0, 1)], 3], "y": tune.uniform(0, 1)}, "param_space: x: a domain within a list"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        RZeroSearch(metric="score", mode="max").set_search_properties(None, None, config)


def test_a_parameter_may_be_called_a_grid_search() -> None:
    search = RZeroSearch(metric="score", mode="max", settings=CLASSIC)
    assert search.set_search_properties(None, None, {"use_grid_search": tune.choice([True, False])})
    assert search.suggest("t0") in ({"use_grid_search": True}, {"use_grid_search": False})


def test_two_spaces_are_one_too_many_and_constants_are_none() -> None:
    assert search_of().set_search_properties(None, None, {"y": tune.uniform(0, 1)}) is False, "Tune says so to the user"
    assert search_of().set_search_properties(None, None, {"workers": 2}) is True


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: RZeroSearch(metric="score", mode="max").suggest("t"), "no space"),
        (lambda: search_of(metric=None).suggest("t"), "metric=None"),
        (lambda: search_of(mode=None).suggest("t"), "mode=None"),
        (lambda: search_of(space={"x": "abc"}), "x='abc'"),
        (lambda: search_of(space={}), "the space is empty"),
        (lambda: search_of(space=[("x", [1, 2])]), "space=.* a mapping from the names"),
        (lambda: search_of(space={1: [1, 2]}), "space=.* a mapping from the names"),
        (lambda: search_of(space={"model": {"x": tune.grid_search([1, 2])}}), "space: model/x/grid_search: R-Zero searches"),
        (lambda: search_of(space={"model": {"x": 5}}), "model/x=5"),
        (lambda: search_of(space={"x": [tune.uniform(0, 1), 2]}), "x: a domain inside a list"),
        (lambda: search_of(seed="a"), "seed='a'"),
        (lambda: search_of(seed=-1), "seed=-1"),
        (lambda: search_of(settings={"seed": 1}), "settings={'seed': 1}: allowed is a tune_gpu.config.schema.SearchSettings"),
        (lambda: search_of(tournament=5), "tournament=5"),
        (lambda: search_of(points_to_evaluate=[{"x": 1}], evaluated_rewards=3.0), r"evaluated_rewards=3\.0: allowed is a list"),
        (lambda: search_of(points_to_evaluate=[{"x": 1}], evaluated_rewards=["a"]), "evaluated_rewards: 'a' is no number"),
        (lambda: search_of().set_search_properties("loss", None, {"n": 1}), "RZeroSearch has metric=score, TuneConfig has metric=loss"),
        (lambda: search_of().set_search_properties("score", "min", {"n": 1}), "RZeroSearch has mode=max, TuneConfig has mode=min"),
        (lambda: RZeroScheduler(search_of(), min_windows="2"), "min_windows='2': allowed is a number"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), alpha=None), "alpha=None: allowed is a number"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), window_budget="9"), "window_budget='9': allowed is a number"),  # type: ignore[arg-type]
        (lambda: search_of(points_to_evaluate=[{"x": 9, "mode": "a"}]), r"baseline\.x=9"),
        (lambda: search_of(points_to_evaluate={"x": 1, "mode": "a"}), "points_to_evaluate=.* a list of configurations"),
        (lambda: search_of(points_to_evaluate=[5]), "points_to_evaluate=.* a list of configurations"),
        (lambda: RZeroScheduler(None), "the RZeroSearch whose candidates race, not NoneType"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(BasicVariantGenerator()), "not BasicVariantGenerator"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), min_windows=1), "min_windows=1"),
        (lambda: RZeroScheduler(search_of(), alpha=0.5), r"alpha=0\.5"),
        (lambda: RZeroScheduler(search_of(), window_budget=0), "window_budget=0"),
    ],
)
def test_bad_input_is_one_clear_line(made: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        made()


# What trials report -----------------------------------------------------------------------------------------------------------------


def test_a_metric_that_is_no_number_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    search = search_of()
    assert [search.read({"score": value}) for value in ("0.5", "0.6", math.nan, np.float32(0.5))] == [
        *[Result("failed", n_windows=1)] * 3, Result("ok", 0.5, n_windows=1)]
    assert [record.getMessage() for record in caplog.records] == ["score was reported as '0.5', which is no number: a trial that ends so counts as failed"]


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
def test_without_a_number_of_samples_the_time_decides_and_without_both_the_search(
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
def test_a_trial_that_raises_twice_has_failed_and_is_not_tried_a_third_time(algorithm: str) -> None:
    search = RZeroSearch({"x": list(range(8))}, "score", "max", settings=SearchSettings(algorithm=algorithm, generations=20, elites=0))
    tried: list[int] = []
    while isinstance(given := search.suggest(f"t{len(tried)}"), dict):
        raises = given["x"] == 6
        search.on_trial_complete(f"t{len(tried)}", None if raises else {"score": given["x"] % 4}, error=raises)
        tried.append(given["x"])
    assert tried.count(6) == 2
    assert {*tried} == {*range(8)}
    assert search.tournament.ended_because == "space exhausted"


def test_a_result_of_a_trial_that_had_raised_counts_when_tune_runs_it_again(tmp_path: Path) -> None:
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


def test_a_trial_that_a_scheduler_stops_while_it_is_paused_has_what_it_reported_last() -> None:
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


def test_what_a_point_leaves_out_is_drawn_and_what_is_constant_is_left_to_tune() -> None:
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
    with pytest.raises(UserError, match="has begun in another one"):
        search.set_search_properties(None, None, {"x": tune.choice([1, 3])})


def test_results_of_trials_of_others_are_ignored() -> None:
    search = search_of()
    search.on_trial_complete("stranger", {"score": 1.0})
    assert search.tournament.history == []


# Results from elsewhere -------------------------------------------------------------------------------------------------------------

ELSEWHERE = [{"x": 2, "mode": "a"}, {"x": 5, "mode": "b"}, {"x": 6, "mode": "b"}]


def run_out(search: RZeroSearch) -> list[dict[str, Any]]:
    """All that it suggests, measured at 10 - |x - 4|."""
    given: list[dict[str, Any]] = []
    while isinstance(suggested := search.suggest(f"t{len(given)}"), dict):
        given.append(suggested)
        search.on_trial_complete(f"t{len(given) - 1}", {"score": 10.0 - abs(suggested["x"] - 4)})
    return given


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_what_was_evaluated_elsewhere_is_known_and_not_tried_again(algorithm: str) -> None:
    search = search_of(settings=SearchSettings(algorithm=algorithm, seed=0), points_to_evaluate=ELSEWHERE, evaluated_rewards=[8.0, 20.0, math.nan])
    given = run_out(search)
    assert ELSEWHERE[0] not in given, "known, and not the best"
    assert ELSEWHERE[2] not in given, "it failed"
    assert len({json.dumps(point) for point in given if point not in ELSEWHERE}) == 9, "the other nine of twelve"
    again = given.count(ELSEWHERE[1])
    known = {json.dumps(standing.params): standing.fitness for standing in search.tournament.standings()}
    assert [known[json.dumps(point)] for point in ELSEWHERE] == [8.0, pytest.approx((20.0 + 9.0 * again) / (1 + again)), None]
    assert (again > 0) == (algorithm == "classic"), "R-Zero measures the best again in each generation, the guided one only where there is noise"


def test_in_mode_min_and_in_tunes_own_space_a_result_from_elsewhere_means_the_same() -> None:
    search = RZeroSearch(settings=SearchSettings(seed=0), points_to_evaluate=[{"x": 1, "model": {"depth": 3}}], evaluated_rewards=[-5.0])
    search.add_evaluated_point({"x": 2, "model": {"depth": 4}, "constant": 7}, 1.0)
    search.add_evaluated_point({"x": 3, "model": {"depth": 4}, "constant": 7}, 1.0, error=True)
    assert search.set_search_properties("loss", "min", {"x": tune.choice([1, 2, 3]), "model": {"depth": tune.choice([3, 4])}, "constant": 7})
    assert isinstance(search.suggest("t0"), dict)
    best = search.tournament.best()
    assert best is not None
    assert (best.params, best.fitness) == ({"x": 1, "model/depth": 3}, 5.0)
    assert [standing.fitness for standing in search.tournament.standings()] == [5.0, -1.0, None]


def test_the_trials_of_an_earlier_experiment_are_told_by_tunes_own_call() -> None:
    trials = [Trial("made", config=point, stub=True) for point in ELSEWHERE]
    for trial, status, result in zip(trials, (Trial.TERMINATED, Trial.TERMINATED, Trial.ERROR), (3.0, 4.0, 9.0), strict=True):
        trial.status = status
        trial.run_metadata.last_result = {"score": result, "done": True}
    search = search_of()
    search.add_evaluated_trials(trials, "score")
    search.suggest("t0")
    assert [(standing.params, standing.fitness) for standing in search.tournament.standings()] == [
        (ELSEWHERE[1], 4.0), (ELSEWHERE[0], 3.0), (ELSEWHERE[2], None)]


@pytest.mark.parametrize("begun", [False, True])
def test_restored_it_still_knows_what_it_was_told(begun: bool, tmp_path: Path) -> None:
    search = search_of(settings=SearchSettings(seed=0), points_to_evaluate=ELSEWHERE, evaluated_rewards=[8.0, 7.0, 6.0])
    if begun:
        begin(search)
    search.save(str(tmp_path / "s"))
    told, untold = (search_of(settings=SearchSettings(seed=0), **given) for given in (
        {"points_to_evaluate": ELSEWHERE, "evaluated_rewards": [8.0, 7.0, 6.0]}, {}))
    for later in (told, untold):
        later.restore(str(tmp_path / "s"))
    proposed = [run_out(one) for one in (told, untold)]
    assert proposed[0] == proposed[1]
    assert not any(point in proposed[0] for point in ELSEWHERE)
    standings = [[(s.params, s.fitness) for s in one.tournament.standings()] for one in (told, untold)]
    assert standings[0] == standings[1]


def test_results_from_elsewhere_that_cannot_be_told_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="evaluated_rewards: 1 for 3 points_to_evaluate"):
        search_of(points_to_evaluate=ELSEWHERE, evaluated_rewards=[1.0])
    with pytest.raises(UserError, match="x=7: allowed: 1, 2, 3"):
        search_of().add_evaluated_point({"x": 7, "mode": "a"}, 1.0)
    with pytest.raises(UserError, match="mode is missing"):
        search_of().add_evaluated_point({"x": 1, "mood": "a"}, 1.0)
    with pytest.raises(UserError, match="this search has begun"):
        half_way().add_evaluated_point(ELSEWHERE[0], 1.0)
    with pytest.raises(UserError, match=r"it tells one value, and search\.objectives wants wer"):
        search_of(settings=SearchSettings(objectives={"wer": "min"})).add_evaluated_point(ELSEWHERE[0], 1.0)


def test_points_of_numpys_numbers_are_kept_as_the_spaces_own(tmp_path: Path) -> None:
    space = SPACE | {"share": tune.uniform(0.0, 4.0)}
    search = search_of(space=space, points_to_evaluate=[{"x": np.int64(3), "mode": np.str_("b"), "share": np.float32(0.5)}])
    search.add_evaluated_point({"x": np.int64(2), "mode": "a", "share": np.int64(1)}, np.float64(1.0))
    assert search.suggest("t0") == {"x": 3, "mode": "b", "share": 0.5}
    search.save(str(tmp_path / "s"))
    assert json.loads((tmp_path / "s").read_text())["live"] == {"t0": "g0-c0"}


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_a_limiter_in_batches_tells_the_search_only_of_whole_batches(algorithm: str) -> None:
    search = search_of(settings=SearchSettings(algorithm=algorithm, seed=0, initial=4))
    limiter = ConcurrencyLimiter(search, max_concurrent=4, batch=True)
    limiter.set_search_properties(None, None, {})
    assert all(isinstance(limiter.suggest(f"t{number}"), dict) for number in range(4))
    for number in range(4):
        assert search.tournament.history == []
        assert limiter.suggest("t4") is None
        limiter.on_trial_complete(f"t{number}", {"score": float(number)})
    assert len(search.tournament.history) == 4
    assert isinstance(limiter.suggest("t4"), dict)


def experiment_of(search: Searcher) -> SearchGenerator:
    """As each `Tuner.fit` makes one."""
    generator = SearchGenerator(search)
    generator.add_configurations(Experiment("made", lambda config: None, num_samples=20))
    return generator


@pytest.mark.parametrize("settings", [CLASSIC, None])
def test_what_an_experiment_left_in_flight_is_suggested_again_by_the_next(settings: SearchSettings | None) -> None:
    """Tune tells nothing of the trials that a time budget has stopped; a search that waited for them stood still without a word."""
    search = search_of(settings=settings)
    first = experiment_of(ConcurrencyLimiter(search, 2))
    left = [trial.evaluated_params for trial in (first.next_trial(), first.next_trial())]
    assert first.next_trial() is None
    second = experiment_of(ConcurrencyLimiter(search, 2))
    trials = [second.next_trial(), second.next_trial()]
    assert [trial.evaluated_params for trial in trials] == left
    assert second.next_trial() is None
    second.on_trial_complete(trials[0].trial_id, {"score": 1.0})
    second.on_trial_complete(trials[1].trial_id, {"score": 1.0})
    assert second.next_trial() is not None


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_repeater_tells_the_mean_of_those_that_did_not_raise(tmp_path: Path) -> None:
    search = search_of()
    repeater = Repeater(search, repeat=2)
    first = [repeater.suggest(f"t{number}") for number in range(2)]
    assert [given and given["x"] for given in first] == [first[0] and first[0]["x"]] * 2
    repeater.on_trial_complete("t0", {"score": 4.0})
    later = keep(tmp_path, search, ("t0", "TERMINATED", first[0] or {}, {"score": 4.0}), ("t1", "RUNNING", first[1] or {}, {}))
    assert later.tournament.history == [], "Tune's Repeater is restored too, and still waits for the second"
    repeater.on_trial_complete("t1", error=True)
    assert [result.fitness for _, result in search.tournament.history] == [4.0]
    for number in range(2):
        repeater.suggest(f"u{number}")
    for number in range(2):
        repeater.on_trial_complete(f"u{number}", error=True)
    assert search.tournament.history[1][1] == Result("failed", transient=True)


class Asking(TuneController):
    """What a search sees of Tune that has restored an experiment."""

    def __init__(self, search: Searcher, trials: list[Trial]) -> None:
        self._generator, self._kept = experiment_of(search), trials

    def get_trials(self) -> list[Trial]:
        return self._kept

    def get_trial(self, tid: str) -> Trial | None:
        return next((trial for trial in self._kept if trial.trial_id == tid), None)

    def ask(self) -> Trial | None:
        return self._generator.next_trial()

    def tell(self, trial_id: str, result: dict[str, Any]) -> None:
        self._generator.on_trial_complete(trial_id, result)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("values", [[1, 2, 3], [{"d": 1}, {"d": 2}, {}], [(1, 2), (3, 4), (5, 6)], [units, len, None]])
def test_a_result_of_a_trial_that_had_raised_counts_when_tune_runs_it_again_under_a_new_id(wrap: bool, values: list[Any]) -> None:
    """As `restart_errored` does."""
    search = search_of(space={"net": {"x": tune.choice(values)}, "y": [1, 2]}, wrap=wrap)
    suggested = [search.suggest(f"t{number}") for number in range(2)]
    for number in range(2):
        search.on_trial_complete(f"t{number}", error=True)
    assert search.tournament.standings() == []
    asking = Asking(search, [
        Trial("made", trial_id=f"new{i}", evaluated_params=flatten_dict(given), stub=True) for i, given in enumerate(suggested) if isinstance(given, dict)])
    for number in (1, 0):
        asking.tell(f"new{number}", {"score": float(number)})
    asking.tell("stranger", {"score": 9.0})
    first = {candidate.candidate_id: result.fitness for candidate, result in search.tournament.history}
    assert first == {"g0-c0": 0.0, "g0-c1": 1.0}


def test_trials_that_tune_restores_and_does_not_run_again_are_not_waited_for(tmp_path: Path) -> None:
    """`Tuner.restore(resume_unfinished=False)`: they have what they reported last."""
    later = keep(tmp_path, half_way(), *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}))
    trials = [Trial("made", trial_id=trial_id, stub=True) for trial_id in ("t2", "t3")]
    for trial in trials:
        trial.status = Trial.TERMINATED
    trials[0].run_metadata.last_result = {"score": 7.0}
    asking = Asking(ConcurrencyLimiter(later, 2), trials)
    assert asking.ask() is not None
    assert asking.ask() is not None
    assert asking.ask() is None
    assert [(result.fitness, result.transient) for _, result in later.tournament.history[2:]] == [(7.0, False), (None, True)]


# Saved and restored -----------------------------------------------------------------------------------------------------------------


def half_way(**changes: Any) -> RZeroSearch:
    search = search_of(**changes)
    begin(search)
    return search


def begin(search: Searcher) -> None:
    """Generation 0 is measured, two of generation 1 are in flight."""
    for number in range(4):
        assert isinstance(search.suggest(f"t{number}"), dict)
        if number < 2:
            search.on_trial_complete(f"t{number}", {"score": float(number)})


def test_restored_by_hand_it_suggests_again_what_was_in_flight(tmp_path: Path) -> None:
    search, later = half_way(), search_of()
    in_flight = [search.candidate_of("t2"), search.candidate_of("t3")]
    search.save(str(tmp_path / "s"))
    later.restore(str(tmp_path / "s"))
    assert later.suggest("u0") == in_flight[0].params  # type: ignore[union-attr]
    later.save(str(tmp_path / "again"))
    third = search_of()
    third.restore(str(tmp_path / "again"))
    assert {json.dumps(third.suggest(f"v{i}")) for i in range(2)} == {json.dumps(c.params) for c in in_flight if c}


def test_without_a_space_of_its_own_a_search_takes_all_from_its_checkpoint(tmp_path: Path) -> None:
    """As after `Tuner.restore` without a `param_space`: Tune has pickled the searcher before it told the space."""
    search = RZeroSearch(metric="score", mode="max", seed=3, points_to_evaluate=[{"x": 5}, {"x": 6}, {"x": 4}])
    pickled = cloudpickle.dumps(search)
    search.save(str(tmp_path / "empty"))
    search.set_search_properties(None, None, {"x": tune.randint(0, 50), "fixed": 1}, num_samples=20)
    for number in range(7):
        given = search.suggest(f"t{number}")
        assert isinstance(given, dict)
        search.on_trial_complete(f"t{number}", {"score": -given["x"]})
    search.save(str(tmp_path / "searcher"))
    expected = [search.suggest(f"n{number}") for number in range(3)]
    for later in (RZeroSearch(metric="score", mode="max"), cloudpickle.loads(pickled)):
        later.restore(str(tmp_path / "empty"))
        later.restore(str(tmp_path / "searcher"))
        assert later.set_search_properties(None, None, {"x": tune.randint(0, 50)}, num_samples=20)
        assert [later.suggest(f"n{number}") for number in range(3)] == expected


@pytest.mark.parametrize(("values", "kept"), [
    ([(1, (2, 3)), (3, 4)], True), ([{"a": (1,)}, {"b": [2]}], True), ([("__ref_ph", "17acd306"), 2], False), ([{"tuple": [1]}, 2], False), ([units, 2], False)])
def test_tuples_are_taken_from_a_checkpoint_and_what_json_cannot_hold_is_asked_for_again(values: list[Any], kept: bool, tmp_path: Path) -> None:
    search = RZeroSearch(metric="score", mode="max")
    assert search.set_search_properties(None, None, {"x": tune.choice(values)})
    given = search.suggest("t0")
    search.save(str(tmp_path / "s"))
    later = RZeroSearch(metric="score", mode="max")
    if kept:
        later.restore(str(tmp_path / "s"))
        assert later.suggest("t1") == given
    else:
        with pytest.raises(UserError, match=r"no space: .*to Tuner\.restore again, where there are functions"):
            later.restore(str(tmp_path / "s"))


@pytest.mark.parametrize("text", ["", "{}", '{"tournament": {"ver', "[1]", "\x80\x04"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "searcher").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="searcher: this is no checkpoint"):
        search_of().restore(str(tmp_path / "searcher"))


def test_a_copy_that_is_restored_by_hand_waits_for_nobody(tmp_path: Path) -> None:
    search = search_of()
    given = search.suggest("t0")
    search.save(str(tmp_path / "searcher"))
    later = copy.deepcopy(search_of())
    later.restore(str(tmp_path / "searcher"))
    assert later.suggest("t1") == given


def test_restored_by_tune_it_waits_for_the_trials_that_tune_runs_again(tmp_path: Path) -> None:
    search = half_way()
    search.save(str(tmp_path / "s"))
    later = cloudpickle.loads(cloudpickle.dumps(search_of()))  # as Tuner.restore does
    later.restore(str(tmp_path / "s"))
    assert later.candidate_of("t2") == search.candidate_of("t2")
    new = [later.suggest("u0"), later.suggest("u1")]
    assert all(isinstance(given, dict) for given in new), "the other two of the generation"
    assert later.suggest("u2") is None, "the generation is awaited"
    for trial_id in ("t2", "t3", "u0", "u1"):
        later.on_trial_complete(trial_id, {"score": 3.0})
    assert isinstance(later.suggest("u3"), dict)


def keep(folder: Path, search: RZeroSearch, *trials: tuple[str, str, dict[str, Any], dict[str, Any]], **made: Any) -> RZeroSearch:
    """What a killed run leaves: the searcher's state and Tune's own of its trials; the searcher as `Tuner.restore` brings it up from them."""
    search.save(str(folder / "searcher-state-1.pkl"))
    kept = [
        [json.dumps({"trial_id": trial_id, "status": status, "evaluated_params": params}), json.dumps({"last_result": result})]
        for trial_id, status, params, result in trials
    ]
    (folder / "experiment_state-1.json").write_text(json.dumps({"trial_data": kept}))
    later: RZeroSearch = cloudpickle.loads(cloudpickle.dumps(search_of(**made)))
    later.restore_from_dir(str(folder))
    return later


ENDED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [(f"t{i}", "TERMINATED", {}, {"score": float(i), "done": True}) for i in range(2)]


def test_a_trial_that_tune_has_never_heard_of_is_suggested_again_and_not_waited_for(tmp_path: Path) -> None:
    search = half_way()
    later = keep(tmp_path, search, *ENDED, ("t2", "RUNNING", {}, {}))
    assert later.candidate_of("t2") == search.candidate_of("t2"), "Tune runs that one again"
    assert later.candidate_of("t3") is None
    lost = search.candidate_of("t3")
    assert lost is not None
    assert later.suggest("u0") == lost.params


def test_a_trial_that_ended_after_the_searchers_state_was_written_gives_its_result_and_is_not_waited_for(tmp_path: Path) -> None:
    search = half_way()
    later = keep(tmp_path, search, *ENDED, ("t2", "TERMINATED", {}, {"score": 5.0}), ("t3", "ERROR", {}, {}))
    assert [later.candidate_of(trial_id) for trial_id in ("t2", "t3")] == [None, None]
    told = [result for _, result in later.tournament.history[2:]]
    assert [(result.fitness, result.transient) for result in told] == [(5.0, False), (None, True)], "an error says nothing of its candidate"


def test_tunes_limit_holds_by_what_is_in_flight_here_also_where_the_limiters_own_state_is_older(tmp_path: Path) -> None:
    search = search_of()
    limiter = ConcurrencyLimiter(search, 2)
    begin(limiter)
    assert limiter.suggest("t4") is None, "two are in flight"
    older = limiter.get_state()
    limiter.on_trial_complete("t2", {"score": 2.0})
    assert isinstance(limiter.suggest("t4"), dict)
    kept = [*ENDED, ("t2", "TERMINATED", {}, {"score": 2.0}), ("t3", "RUNNING", {}, {}), ("t4", "RUNNING", {}, {})]
    later = ConcurrencyLimiter(keep(tmp_path, search, *kept), 2)
    later.set_state(older)
    assert later.suggest("u0") is None, "Tune runs two again"
    later.on_trial_complete("t4", {"score": 4.0})
    assert isinstance(later.suggest("u0"), dict)
    assert later.suggest("u1") is None


def test_a_trial_that_began_after_the_searchers_state_was_written_is_taken_over(tmp_path: Path) -> None:
    search = half_way()
    search.save(str(tmp_path / "before"))
    next_one = search.suggest("t4")
    assert isinstance(next_one, dict)
    older = search_of()
    older._tune_restores = True
    older.restore(str(tmp_path / "before"))
    later = keep(tmp_path, older, *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}), ("t4", "RUNNING", next_one, {}))
    assert later.candidate_of("t4") == search.candidate_of("t4")
    assert later.suggest("t5") == search.suggest("t5")


@pytest.mark.parametrize(
    "values", [[(1, 2), (3, 4), (5, 6)], [units, len, None], [np.arange(2), np.arange(3), np.arange(4)], [{"d": 1, "e": {}}, {"d": 2}, {}],
               [math.nan, 2.0, "a"]])
def test_a_trial_is_taken_over_whatever_its_values_are(values: list[Any], tmp_path: Path) -> None:
    """Tune keeps a tuple as a list, a function and an array as a pickle, and a dict by its items."""
    made = {"space": {"x": tune.choice(values)}}
    search = search_of(**made)
    assert isinstance(search.suggest("t0"), dict)
    search.save(str(tmp_path / "before"))
    next_one = search.suggest("t1")
    assert isinstance(next_one, dict)
    older = search_of(**made)
    older._tune_restores = True
    older.restore(str(tmp_path / "before"))
    later = keep(tmp_path, older, ("t0", "RUNNING", {}, {}), ("t1", "RUNNING", as_kept(next_one), {}), **made)
    taken = later.candidate_of("t1")
    assert taken is not None
    assert later.tournament.space.key(taken.params) == later.tournament.space.key(next_one)


def test_a_trial_that_is_not_of_this_search_is_left_alone(tmp_path: Path) -> None:
    search = half_way()
    in_turn = half_way().suggest("t4")
    later = keep(tmp_path, search, *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}), ("x", "RUNNING", {"x": -1}, {}))
    assert later.candidate_of("x") is None
    assert later.suggest("t4") == in_turn


def test_trials_of_tune_that_cannot_be_read_leave_the_searchers_own_state(tmp_path: Path) -> None:
    keep(tmp_path, half_way())
    (tmp_path / "experiment_state-1.json").write_text('{"trial_data": [[')
    later: RZeroSearch = cloudpickle.loads(cloudpickle.dumps(search_of()))
    later.restore_from_dir(str(tmp_path))
    assert later.candidate_of("t2") is not None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_carried_to_another_process_as_ray_does_it_goes_on_the_same(asynchronous: bool) -> None:
    """Out-of-band buffers come back as read-only memory (pickle protocol 5; Ray's object store)."""
    search = half_way(settings=SearchSettings(algorithm="rzero", asynchronous=asynchronous))
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(search, protocol=5, buffer_callback=buffers.append)
    later = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    for each in (search, later):
        each.on_trial_complete("t2", {"score": 2.0})
        each.on_trial_complete("t3", {"score": 1.0})
    assert [later.suggest(f"u{i}") for i in range(2)] == [search.suggest(f"u{i}") for i in range(2)]
    for number in range(8):  # to the end: what was proposed before it was carried is not all
        for each in (search, later):
            each.on_trial_complete(f"u{number}", {"score": float(number % 3)})
        assert later.suggest(f"u{number + 2}") == search.suggest(f"u{number + 2}")


def test_a_checkpoint_of_another_space_is_refused(tmp_path: Path) -> None:
    half_way().save(str(tmp_path / "s"))
    with pytest.raises(UserError, match="another space"):
        search_of(space={"x": [1, 2]}).restore(str(tmp_path / "s"))


# Racing -----------------------------------------------------------------------------------------------------------------------------


class Race:
    """Trials that report window by window, in the order that a test gives."""

    def __init__(self, search: RZeroSearch | None = None, **options: Any) -> None:
        self.search = search or search_of(points_to_evaluate=[{"x": 1, "mode": "a"}])
        self.scheduler = RZeroScheduler(self.search, **options)
        self.started = 0

    def start(self, count: int) -> list[Any]:
        trials = [SimpleNamespace(trial_id=f"t{self.started + i}") for i in range(count)]
        self.started += count
        assert all(isinstance(self.search.suggest(trial.trial_id), dict) for trial in trials)
        return trials

    def report(self, trial: Any, score: float, windows: int, stderr: float | None = 0.01, *, done: bool = False) -> str:
        result = {"score": score, "stderr": stderr, "n_windows": windows, "done": done}
        decision = self.scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]
        if done or decision == TrialScheduler.STOP:
            self.scheduler.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
            self.search.on_trial_complete(trial.trial_id, result)
        return decision


def raced_generation(race: Race) -> list[Any]:
    """Generation 0 ended at 0.5; the four of generation 1."""
    for trial in race.start(2):
        race.report(trial, 0.5, 6, done=True)
    return race.start(4)


def test_who_is_clearly_beaten_for_every_place_is_stopped_and_keeps_what_it_measured() -> None:
    race = Race()
    a, b, c, d = raced_generation(race)
    assert race.report(a, 0.9, 3) == TrialScheduler.CONTINUE
    assert race.report(b, 0.8, 3) == TrialScheduler.CONTINUE
    assert race.report(c, 0.1, 1) == TrialScheduler.CONTINUE, "one window proves nothing"
    loser = race.search.candidate_of(c.trial_id)
    assert race.report(c, 0.1, 2) == TrialScheduler.STOP
    assert race.report(d, 0.85, 3) == TrialScheduler.CONTINUE, "close to b"
    assert loser is not None
    assert race.scheduler.stopped == [loser.candidate_id]
    told = {candidate.candidate_id: result for candidate, result in race.search.tournament.history}
    assert told[loser.candidate_id] == Result("ok", 0.1, 0.01, 2)


def test_in_pareto_mode_whoever_is_ahead_in_one_objective_is_not_stopped_for_its_fitness() -> None:
    class Told(Race):
        def report(self, trial: Any, score: float, windows: int, stderr: float | None = 0.01, *, done: bool = False, memory: float = 5.0) -> str:
            result = {"score": score, "stderr": stderr, "n_windows": windows, "done": done, "memory": memory}
            return self.scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]

    race = Told(search_of(settings=SearchSettings(algorithm="classic", initial=4, objectives={"score": "max", "memory": "min"})))
    a, b, c, d = race.start(4)
    race.report(a, 0.9, 3)
    race.report(b, 0.8, 3)
    assert race.report(c, 0.1, 3, memory=1.0) == TrialScheduler.CONTINUE, "it needs the least memory"
    assert race.report(d, 0.1, 3, memory=9.0) == TrialScheduler.STOP


def test_the_scheduler_looks_through_what_wraps_the_searcher() -> None:
    search = search_of()
    assert RZeroScheduler(ConcurrencyLimiter(search, max_concurrent=2))._search is search  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [BasicVariantGenerator, lambda: SearchGenerator(ConcurrencyLimiter(search_of(), 2))])
def test_a_scheduler_of_another_search_than_tunes_says_so(other: Any) -> None:
    """Nothing would ever race."""
    search = search_of()
    scheduler = RZeroScheduler(search)
    scheduler.on_trial_add(SimpleNamespace(search_alg=SearchGenerator(Repeater(search, 2))), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"Tune searches with another (BasicVariantGenerator|RZeroSearch); give TuneConfig\(search_alg"):
        scheduler.on_trial_add(SimpleNamespace(search_alg=other()), None)  # type: ignore[arg-type]


def test_close_candidates_go_on() -> None:
    race = Race()
    a, b, c, _ = raced_generation(race)
    for windows in range(1, 6):
        for trial, score in ((a, 0.9), (b, 0.88), (c, 0.86)):
            assert race.report(trial, score, windows, stderr=0.05) == TrialScheduler.CONTINUE


def test_arrays_among_the_values_race_and_are_restored(tmp_path: Path) -> None:
    """Python gives no one answer to whether two of them are equal."""

    def search_of_arrays() -> RZeroSearch:
        arrays = [np.arange(n) for n in range(2, 7)]
        return search_of(space={"x": tune.choice(arrays)}, points_to_evaluate=[{"x": np.arange(6)}], evaluated_rewards=[2.0])

    race = Race(search_of_arrays())
    for _ in range(2):
        for trial in race.start(2):
            race.report(trial, 0.5, 3)
            race.report(trial, 0.6, 6, done=True)
    race.search.save(str(tmp_path / "s"))
    later = search_of_arrays()
    later.restore(str(tmp_path / "s"))
    assert repr(later.tournament.standings()) == repr(race.search.tournament.standings())


def test_without_a_standard_error_nobody_is_stopped() -> None:
    race = Race()
    a, b, c, _ = raced_generation(race)
    decisions = [race.report(trial, score, 5, stderr=None) for trial, score in ((a, 0.9), (b, 0.8), (c, 0.1))]
    assert set(decisions) == {TrialScheduler.CONTINUE}


def test_the_baseline_is_never_stopped() -> None:
    race = Race()
    trials = race.start(2)
    at = next(i for i, trial in enumerate(trials) if (c := race.search.candidate_of(trial.trial_id)) and c.origin == "baseline")
    race.report(trials[1 - at], 0.9, 6)
    assert race.report(trials[at], 0.0, 6) == TrialScheduler.CONTINUE


def test_when_the_budget_of_windows_is_spent_nobody_gets_more_than_the_fewest() -> None:
    race = Race(window_budget=20)
    a, b, _, _ = raced_generation(race)  # 12 windows
    assert race.report(a, 0.9, 6) == TrialScheduler.CONTINUE
    assert race.report(b, 0.9, 1) == TrialScheduler.CONTINUE
    assert race.report(b, 0.9, 2) == TrialScheduler.STOP


def test_a_budget_of_windows_holds_for_the_whole_search() -> None:
    """A restored experiment, or another one of the same search, has a scheduler that knows of no window."""
    race = Race(window_budget=14)
    a, *_ = raced_generation(race)  # 12 windows
    race.scheduler = RZeroScheduler(race.search, window_budget=14)
    assert race.report(a, 0.9, 2) == TrialScheduler.STOP


def test_a_failed_window_does_not_race() -> None:
    race = Race()
    a, *_ = raced_generation(race)
    assert race.report(a, math.nan, 3) == TrialScheduler.CONTINUE


def test_in_pareto_mode_every_objective_must_be_reported() -> None:
    search = search_of(settings=SearchSettings(algorithm="classic", objectives={"latency_ms": "min", "capacity": "max"}))
    whole = {"score": 1.0, "latency_ms": 20.0, "capacity": 3}
    assert search.read(whole).objectives == {"latency_ms": 20.0, "capacity": 3.0}
    assert search.read(whole | {"capacity": math.nan}) == Result("infeasible", n_windows=1, objectives={})


def test_a_trial_that_ends_without_a_result_is_suggested_again_as_long_as_that_is_allowed() -> None:
    book = RetryTracker(max_retries=1)
    search = RZeroSearch({"x": [1, 2]}, metric="score", mode="max", settings=SearchSettings(initial=2, generations=1), again=book.again)
    first, second = search.suggest("a"), search.suggest("b")
    search.on_trial_complete("a", None, error=True)
    assert search.suggest("c") == first, "even where nothing new would be proposed"
    assert search.suggest("d") is None, "results are awaited: one of them may have to be suggested again"
    search.on_trial_complete("c", None, error=True)
    assert search.suggest("e") is None
    search.on_trial_complete("b", {"score": 1.0})
    assert search.suggest("f") == "FINISHED"
    assert {result.status: result.transient for _, result in search.tournament.history} == {"failed": True, "ok": False}
    assert [cause["kind"] for cause in book.carried(search.tournament.history[0][0].candidate_id)] == ["service_lost"]
    assert second != first
