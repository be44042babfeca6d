"""What may vary in a search of R-Zero."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.tune.search import BasicVariantGenerator

from tests.support.searches import CLASSIC, search_of, units
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.rzero import RZeroScheduler, RZeroSearch


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


@pytest.mark.parametrize(
    ("domain", "given"),
    [
        (tune.choice([[64, 64], [128, 128]]), "[[128, 128], [64, 64]]"),
        (tune.choice([{"depth": 1}, {"depth": 2}]), "[{'depth': 1}, {'depth': 2}]"),
        (tune.choice([(1, 2), (3, 4)]), "[(1, 2), (3, 4)]"),
        (tune.choice([int, str]), "[<class 'int'>, <class 'str'>]"),
        pytest.param(tune.choice([units, None]), f"[{units!r}, None]", id="a function"),  # its address differs between pytest-xdist's workers
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
def test_a_long_range_is_searched_in_little_memory(domain: Any, algorithm: str, tmp_path: Path) -> None:
    tracemalloc.start()
    search = search_of(space={"x": domain, "y": tune.uniform(0.0, 1.0)}, settings=SearchSettings(algorithm=algorithm, seed=0))
    seen: list[dict[str, Any]] = []
    while isinstance(suggested := search.suggest(f"t{len(seen)}"), dict):
        seen.append(suggested)
        search.on_trial_complete(f"t{len(seen) - 1}", {"score": suggested["y"]})
    search.save(str(tmp_path / "s"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 14
    assert most < 100 * 2**20, "the range is not written out"
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
        (lambda: search_of(space={"model": {"x": tune.grid_search([1, 2])}}), "space: model/x/grid_search: R-Zero does not search a grid"),
        (lambda: search_of(space={"model": {"x": 5}}), "model/x=5"),
        (lambda: search_of(space={"x": [tune.uniform(0, 1), 2]}), "x: a domain inside a list"),
        (lambda: search_of(seed="a"), "seed='a'"),
        (lambda: search_of(seed=-1), "seed=-1"),
        (lambda: search_of(settings={"seed": 1}), "settings={'seed': 1}: not settings of a search. Give a tune_gpu.config.schema.SearchSettings"),
        (lambda: search_of(tournament=5), "tournament=5"),
        (lambda: search_of(points_to_evaluate=[{"x": 1}], evaluated_rewards=3.0), r"evaluated_rewards=3\.0: not a list"),
        (lambda: search_of(points_to_evaluate=[{"x": 1}], evaluated_rewards=["a"]), "evaluated_rewards: 'a' is not a number"),
        (lambda: search_of().set_search_properties("loss", None, {"n": 1}), "metric: RZeroSearch has score, but TuneConfig has loss"),
        (lambda: search_of().set_search_properties("score", "min", {"n": 1}), "mode: RZeroSearch has max, but TuneConfig has min"),
        (lambda: RZeroScheduler(search_of(), min_windows="2"), "min_windows='2': not a number"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), alpha=None), "alpha=None: not a number"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), window_budget="9"), "window_budget='9': not a number"),  # type: ignore[arg-type]
        (lambda: search_of(points_to_evaluate=[{"x": 9, "mode": "a"}]), r"baseline\.x=9"),
        (lambda: search_of(points_to_evaluate={"x": 1, "mode": "a"}), "points_to_evaluate=.* a list of configurations"),
        (lambda: search_of(points_to_evaluate=[5]), "points_to_evaluate=.* a list of configurations"),
        (lambda: RZeroScheduler(None), "search=NoneType: RZeroScheduler works only with RZeroSearch"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(BasicVariantGenerator()), "search=BasicVariantGenerator: RZeroScheduler works"),  # type: ignore[arg-type]
        (lambda: RZeroScheduler(search_of(), min_windows=1), "min_windows=1"),
        (lambda: RZeroScheduler(search_of(), alpha=0.5), r"alpha=0\.5"),
        (lambda: RZeroScheduler(search_of(), window_budget=0), "window_budget=0"),
    ],
)
def test_bad_input_is_one_clear_line(made: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        made()
