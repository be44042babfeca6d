"""What may vary."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.steps import SteppedRange


def spec(*values: Any, kind: str = "ordinal", **rest: Any) -> ParameterSpec:
    return ParameterSpec(target="vllm.max_num_seqs", values=list(values), kind=kind, **rest)


SPACE = SearchSpace.from_specs(
    {
        "share": spec(0.4, 0.45, 0.5),
        "model": spec("tiny", "base", kind="categorical"),
        "beam": spec(1, 5, when={"model": ["base"]}),
    }
)


def test_a_conditional_parameter_counts_only_where_it_exists() -> None:
    assert SPACE.size == 3 * (1 + 2)
    assert {"share": 0.4, "model": "tiny"} in SPACE
    assert {"share": 0.4, "model": "tiny", "beam": 1} not in SPACE
    assert {"share": 0.4, "model": "base"} not in SPACE


def test_every_configuration_is_enumerated_once() -> None:
    keys = [SPACE.key(params) for params in SPACE.enumerate()]
    assert len(keys) == len(set(keys)) == SPACE.size


@given(st.integers(0, 2**32))
def test_samples_and_mutations_lie_in_the_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = SPACE.sample(rng)
    assert params in SPACE
    assert SPACE.mutate(params, rng) in SPACE


def test_neighbours_of_an_ordered_parameter_are_the_next_values_only() -> None:
    shares = sorted(n["share"] for n in SPACE.neighbours({"share": 0.4, "model": "tiny"}) if n["model"] == "tiny")
    assert shares == [0.45]


def test_a_constraint_removes_configurations() -> None:
    space = SearchSpace.from_specs({"share": spec(0.4, 0.5)}, allowed=lambda params: params["share"] > 0.45)
    assert list(space.enumerate()) == [{"share": 0.5}]
    assert {"share": 0.4} not in space


def test_ranges_become_grids_with_a_step_and_stay_continuous_without() -> None:
    stepped = SearchSpace.from_specs({"x": ParameterSpec(target="t", low=0.1, high=0.3, step=0.1)})
    assert [p["x"] for p in stepped.enumerate()] == [0.1, 0.2, 0.3]
    smooth = SearchSpace.from_specs({"x": ParameterSpec(target="t", low=1.0, high=100.0, log=True)})
    assert math.isinf(smooth.size)
    rng = np.random.default_rng(0)
    assert all({"x": smooth.mutate({"x": 50.0}, rng)["x"]} in smooth for _ in range(100))


@pytest.mark.parametrize(
    ("specs", "named"),
    [
        ({}, "the space is empty"),
        ({"a": spec()}, r"parameters\.a\.values: is empty"),
        ({"a": spec(1, 1)}, "appears twice"),
        ({"a": spec([1], [1])}, "appears twice"),
        ({"a": ParameterSpec(target="t", low=0, high=math.inf)}, r"parameters\.a\.high=inf: not a finite number. Set a finite number"),
        ({"a": ParameterSpec(target="t", low=0, high=9, step=0.5, integer=True)}, "a whole number"),
        ({"a": ParameterSpec(target="t", low=0.2, high=0.8, integer=True)}, "contains no whole number, or too many"),
        ({"a": ParameterSpec(target="t", low=0, high=2**70, integer=True)}, "contains no whole number, or too many"),
        ({"a": spec(1, kind="odd")}, "ordinal, categorical"),
        ({"a": ParameterSpec(target="t")}, "Give `values`"),
        ({"a": ParameterSpec(target="t", low=2, high=1)}, "low <= high"),
        ({"a": spec(1, when={"b": [1]}), "b": spec(1)}, r"parameters\.a\.when\.b"),
        ({"b": spec(1), "a": spec(1, when={"b": [7]})}, "not allowed. Use 1"),
    ],
)
def test_a_space_that_is_none_is_refused_by_name(specs: dict[str, ParameterSpec], named: str) -> None:
    with pytest.raises(UserError, match=named):
        SearchSpace.from_specs(specs)


def test_a_configuration_out_of_bounds_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"share=0\.9: not allowed\. Use 0\.4, 0\.45, 0\.5"):
        SPACE.check({"share": 0.9, "model": "tiny"})
    with pytest.raises(UserError, match=r"shared: no such parameter\. Use one of share, model, beam"):
        SPACE.check({"shared": 0.4})
    with pytest.raises(UserError, match="model: missing"):
        SPACE.check({"share": 0.4})


def ranged(**options: Any) -> SearchSpace:
    return SearchSpace.from_specs({"x": ParameterSpec(target="t", **options)})


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"low": 0, "high": 2**31 - 1, "integer": True}, 2**31),
        ({"low": 0, "high": 1, "step": 1e-6}, 1_000_001),
        ({"low": 1, "high": 10**9, "integer": True, "log": True}, 10**9),
        ({"low": 1, "high": 100, "integer": True, "log": True}, 100),
        ({"low": 0, "high": 10**12, "step": 4, "integer": True}, 25 * 10**10 + 1),
    ],
)
def test_long_range_is_counted_sampled_and_mutated_unwritten(options: dict[str, Any], size: int) -> None:
    """A long range in steps is never written out."""
    space = ranged(**options)
    assert space.size == size
    rng = np.random.default_rng(0)
    params = space.sample(rng)
    for _ in range(100):
        before, params = params, space.mutate(params, rng)
        assert params in space
        assert params != before
        assert space.key(params) != space.key(before)
        assert space.key(params) == space.key(space.canonical(params))
    for beside in space.neighbours(params):
        assert beside["x"] - params["x"] in (pytest.approx(options.get("step", 1)), pytest.approx(-options.get("step", 1)))
    assert {"x": params["x"] + options.get("step", 1) / 3} not in space
    assert ranged(**options).fingerprint() == space.fingerprint() != ranged(**options | {"low": options["low"] + 1}).fingerprint()


def test_a_long_range_with_conditions_is_counted_by_what_they_name() -> None:
    specs = {
        "n": ParameterSpec(target="t", low=0, high=10**9 - 1, integer=True),
        "mode": spec("a", "b", "c", kind="categorical", when={"n": [0, 7]}),
        "depth": spec(1, 2, when={"mode": ["b", "c"]}),
    }
    assert SearchSpace.from_specs(specs).size == 10**9 - 2 + 2 * (1 + 2 + 2)


def test_up_to_a_thousand_steps_are_values_like_any_others() -> None:
    assert ranged(low=1, high=1000, integer=True).parameters["x"].values == tuple(range(1, 1001))
    assert isinstance(ranged(low=1, high=1001, integer=True).parameters["x"].values, SteppedRange)


def test_whole_numbers_of_a_log_range_are_drawn_evenly_in_the_log() -> None:
    rng, space = np.random.default_rng(0), ranged(low=1, high=10**6, integer=True, log=True)
    drawn = [space.sample(rng)["x"] for _ in range(1000)]
    assert 500 < np.median(drawn) < 2000
    assert all(isinstance(value, int) for value in drawn)


@pytest.mark.parametrize("options", [{"low": 0, "high": 0}, {"low": 2.0, "high": 2.0, "log": True}, {"low": 5, "high": 5, "integer": True, "log": True}])
def test_a_range_of_one_number_is_one_value(options: dict[str, Any]) -> None:
    assert list(ranged(**options).enumerate()) == [{"x": options["low"]}]


def test_steps_are_rounded_as_finely_as_they_are() -> None:
    assert [params["x"] for params in ranged(low=0, high=1e-12, step=1e-13).enumerate()] == [pytest.approx(i * 1e-13, rel=1e-6, abs=0.0) for i in range(11)]
    assert math.isinf(ranged(low=0, high=1e6, step=1e-15).size), "finer than its numbers"


@pytest.mark.parametrize("values", [[1, 1.0, True], [0, False, 0.0, None], ["1", 1], [math.nan, 1.0], [[1], [1.0], (1,)], [{"a": [1]}, {"a": [2]}], [len, max, int]])
def test_equal_or_unhashable_values_are_values_of_their_own(values: list[Any]) -> None:
    """Python calls 1, 1.0 and True equal, and cannot hash a list."""
    space = SearchSpace.from_specs({"x": spec(*values, kind="categorical")})
    configurations = list(space.enumerate())
    assert len({space.key(params) for params in configurations}) == len(values)
    assert all(params in space for params in configurations)
    assert [repr(other["x"]) for other in space.neighbours(configurations[0])] == [repr(value) for value in values[1:]]
    again = [space.loaded(json.loads(json.dumps(space.saved(params)))) for params in configurations]
    assert repr(again) == repr(configurations)


def test_plain_values_are_saved_as_they_are_and_others_by_index() -> None:
    """JSON would change the others."""
    space = SearchSpace.from_specs({"n": spec(1, 1.0, None), "f": spec((1, 2), len, kind="categorical"), "r": ParameterSpec(target="t", low=0, high=1)})
    assert space.saved({"n": 1.0, "f": len, "r": 0.5}) == {"n": 1.0, "f": {"index": 1}, "r": 0.5}
    assert space.loaded({"n": 1, "f": [1, 2], "r": 0.5}) == {"n": 1, "f": (1, 2), "r": 0.5}, "an earlier version saved a tuple itself"
    with pytest.raises(UserError, match="f: there is no value with the index 2"):
        space.loaded({"n": 1, "f": {"index": 2}, "r": 0.5})
    with pytest.raises(UserError, match=r"n=7: not allowed\. Use 1"):
        space.loaded({"n": 7, "f": [1, 2], "r": 0.5})


def test_rounded_number_is_the_value_that_is_meant() -> None:
    space = SearchSpace.from_specs({
        "share": ParameterSpec(target="t", low=-1, high=1, step=0.1), "n": spec(1, 2, 4), "fine": ParameterSpec(target="t", low=0, high=1, step=1e-5)})
    own = space.canonical({"share": 0.1 * 3, "n": 2.0, "fine": 0.1 + 0.2})
    assert repr(own) == repr({"share": 0.3, "n": 2, "fine": 0.3})
    assert space.canonical({"share": 0.3 - 0.1 * 3, "n": 2, "fine": 0.0})["share"] == 0.0
    with pytest.raises(UserError, match=r"share=0\.3001"):
        space.canonical({"share": 0.3001, "n": 2, "fine": 0.3})
    with pytest.raises(UserError, match="n=True"):
        space.canonical({"share": 0.3, "n": True, "fine": 0.3})


def test_a_condition_on_1_is_none_on_true() -> None:
    space = SearchSpace.from_specs({"m": spec(1, True), "beam": spec(1, 5, when={"m": [True]})})
    assert [repr(params) for params in space.enumerate()] == ["{'m': 1}", "{'m': True, 'beam': 1}", "{'m': True, 'beam': 5}"]
    assert space.size == 3
