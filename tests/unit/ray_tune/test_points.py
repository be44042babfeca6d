"""Points that a user gives a search: what one says and cannot have is an error, and what it says and can have is tried."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.rzero import RZeroSearch

SPACE: dict[str, Any] = {"x": tune.choice([1, 2, 3]), "model": {"depth": tune.randint(1, 9)}}
CONSTANTS: dict[str, Any] = {
    "epochs": 7, "rate": 0.3, "name": "a", "deep": {"er": [1, 2], "none": None}, "flag": True, "nothing": math.nan, "shape": (4, 5),
}  # fmt: skip
WHOLE = {"x": 2, "model": {"depth": 3}}


def in_tunes_space(point: dict[str, Any], rewarded: bool = False, **constants: Any) -> RZeroSearch:
    search = RZeroSearch(metric="score", mode="max", points_to_evaluate=[WHOLE, point], evaluated_rewards=[1.0, 2.0] if rewarded else None)
    search.set_search_properties(None, None, SPACE | CONSTANTS | constants)
    search.suggest("t0")
    return search


def params_of(search: RZeroSearch) -> dict[str, Any]:
    """Of the point beside WHOLE."""
    first, second = search.suggest("t1"), search.candidate_of("t1")
    assert first is not None
    assert second is not None
    return second.params


@pytest.mark.parametrize("rewarded", [False, True])
@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"epochs": 8}, r"epochs=8: param_space has the constant 7"),
        ({"epochs": True}, r"epochs=True: param_space has the constant 7"),
        ({"flag": 1}, r"flag=1: param_space has the constant True"),
        ({"rate": 0.31}, r"rate=0\.31: param_space has the constant 0\.3"),
        ({"name": "b"}, r"name=b: param_space has the constant a"),
        ({"name": None}, r"name=None: param_space has the constant a"),
        ({"deep": {"er": [2, 1]}}, r"deep/er=\[2, 1\]: param_space has the constant \[1, 2\]"),
        ({"deep/none": 0}, r"deep/none=0: param_space has the constant None"),
        ({"nothing": 0.0}, r"nothing=0\.0: param_space has the constant nan"),
        ({"y": 1}, r"y: neither a parameter nor a constant"),
        ({"model": {"width": 1}}, r"model/width: neither a parameter nor a constant"),
        ({"model": 5}, r"model: neither a parameter nor a constant"),
        ({"epochs": {"a": 1}}, r"epochs/a: neither a parameter nor a constant"),
        ({"x": {"grid_search": [1, 2]}}, r"x(/grid_search)?(: a grid is not a value|=.*Use 1, 2, 3)"),
        ({"y": {"grid_search": [1, 2]}}, r"y/grid_search: a grid is not a value"),
        ({"x": tune.choice([1, 2])}, r"x: a domain is not a value"),
        ({"epochs": tune.choice([7])}, r"epochs: a domain is not a value"),
        ({"deep": {"er": [tune.uniform(0, 1), 2]}}, r"deep/er: a domain is not a value"),
        ({"x": 9}, r"x=9: not allowed. Use 1, 2, 3"),
        ({"x": True}, r"x=True: not allowed. Use 1, 2, 3"),
        ({"x": None}, r"x=None: not allowed. Use 1, 2, 3"),
        ({"model": {"depth": 9}}, r"model/depth=9: not allowed. Use 1, "),
        ({"model": {"depth": 4}, "model/depth": 5}, r"model/depth: given twice"),
    ],
)
def test_what_a_point_says_and_cannot_have_is_an_error(point: dict[str, Any], message: str, rewarded: bool) -> None:
    with pytest.raises(UserError, match=message) as caught:
        in_tunes_space({"x": 1, "model": {"depth": 1}} | point, rewarded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "point",
    [
        CONSTANTS, {"epochs": 7.0}, {"epochs": np.int64(7)}, {"rate": 0.1 * 3}, {"deep": {"er": (1, 2)}}, {"deep/er": [1, 2]}, {"shape": [4, 5]},
        {"nothing": float("nan")}, {"__trial_index__": 3},
    ],
)  # fmt: skip
@pytest.mark.parametrize("rewarded", [False, True])
def test_a_constant_with_its_own_value_is_fine(point: dict[str, Any], rewarded: bool) -> None:
    search = in_tunes_space({"x": 1, "model": {"depth": 1}} | point, rewarded)
    if rewarded:
        assert {"x": 1, "model/depth": 1} in [standing.params for standing in search.tournament.standings()]
    else:
        assert params_of(search) == {"x": 1, "model/depth": 1}


def test_what_tune_keeps_to_itself_is_left_to_it_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        search = in_tunes_space({"x": 1, "model": {"depth": 1}, "data": {1, 2}}, data=("__ref_ph", "0123abcd"))
    assert params_of(search) == {"x": 1, "model/depth": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "points_to_evaluate[1].data: this constant cannot be compared, because Tune has replaced it by a placeholder; the trial gets the value in param_space"
    ]


def test_the_best_of_an_earlier_run_may_be_given_whole() -> None:
    best = {"x": 3, "model": {"depth": 8}, **CONSTANTS}
    assert params_of(in_tunes_space(best)) == {"x": 3, "model/depth": 8}


def test_a_result_of_another_constant_is_no_result_of_this_search(caplog: pytest.LogCaptureFixture) -> None:
    def searched(**constants: Any) -> RZeroSearch:
        search = RZeroSearch(metric="score", mode="max")
        search.add_evaluated_point(WHOLE | constants, 1.0)
        search.set_search_properties(None, None, SPACE | CONSTANTS)
        search.suggest("t0")
        return search

    assert searched(epochs=7).tournament.standings()
    with pytest.raises(UserError, match=r"add_evaluated_point\.epochs=8: param_space has the constant 7"):
        searched(epochs=8)
    with caplog.at_level(logging.WARNING):
        assert searched(workers=2).tournament.standings()
    assert "workers: neither a parameter nor a constant of this search, left out" in caplog.text


def test_in_its_own_space_a_search_refuses_unknown_names_at_once() -> None:
    with pytest.raises(UserError, match=r"points_to_evaluate\[0\]\.y: neither a parameter nor a constant"):
        RZeroSearch({"x": [1, 2]}, "score", "max", points_to_evaluate=[{"x": 1, "y": 2}])


CONDITIONAL = {
    "engine": ParameterSpec(target="", values=["a", "b", "c"], kind="categorical"),
    "batched": ParameterSpec(target="", values=[True, False], when={"engine": ["b", "c"]}),
    "size": ParameterSpec(target="", values=[1, 2, 4], when={"batched": [True]}),
    "other": ParameterSpec(target="", values=[1, 2], when={"engine": ["c"]}),
}


def conditional(point: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    search = RZeroSearch(CONDITIONAL, "score", "max", settings=SearchSettings(seed=seed), points_to_evaluate=[point])
    baseline = next(params for origin, params in search.tournament._given if origin == "baseline")
    return dict(baseline)


@pytest.mark.parametrize(
    "point",
    [{"engine": "a", "batched": True}, {"engine": "b", "other": 1}, {"batched": False, "size": 2}, {"engine": "a", "size": 1}],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_value_where_its_parameter_does_not_exist_is_an_error(point: dict[str, Any], seed: int) -> None:
    with pytest.raises(UserError, match="the parameter exists only if"):
        conditional(point, seed)


@settings(max_examples=100, deadline=None)
@given(
    point=st.fixed_dictionaries(
        {},
        optional={
            "engine": st.sampled_from(["a", "b", "c"]), "batched": st.booleans(), "size": st.sampled_from([1, 2, 4]), "other": st.sampled_from([1, 2]),
        },
    ),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_a_point_is_tried_as_it_is_given_or_refused_whatever_the_seed(point: dict[str, Any], seed: int) -> None:
    possible = (
        not ("batched" in point and point.get("engine") == "a")
        and not ("size" in point and (point.get("batched") is False or point.get("engine") == "a"))
        and not ("other" in point and point.get("engine") in ("a", "b"))
    )
    if possible:
        tried = conditional(point, seed)
        assert {name: tried[name] for name in point} == point
    else:
        with pytest.raises(UserError, match="the parameter exists only if"):
            conditional(point, seed)
