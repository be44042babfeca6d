"""What may vary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.config import ParameterSpec
from tune_gpu.errors import UserError
from tune_gpu.space import SearchSpace


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
        ({"a": spec()}, r"parameters\.a\.values is empty"),
        ({"a": spec(1, 1)}, "stands there twice"),
        ({"a": spec(1, kind="odd")}, "ordinal, categorical"),
        ({"a": ParameterSpec(target="t")}, "give `values`"),
        ({"a": ParameterSpec(target="t", low=2, high=1)}, "low <= high"),
        ({"a": spec(1, when={"b": [1]}), "b": spec(1)}, r"parameters\.a\.when\.b"),
        ({"b": spec(1), "a": spec(1, when={"b": [7]})}, "allowed: 1"),
    ],
)
def test_a_space_that_is_none_is_refused_by_name(specs: dict[str, ParameterSpec], named: str) -> None:
    with pytest.raises(UserError, match=named):
        SearchSpace.from_specs(specs)


def test_a_configuration_out_of_bounds_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"share=0\.9: allowed: 0\.4, 0\.45, 0\.5"):
        SPACE.check({"share": 0.9, "model": "tiny"})
    with pytest.raises(UserError, match="shared: no such parameter; allowed: share, model, beam"):
        SPACE.check({"shared": 0.4})
    with pytest.raises(UserError, match="model is missing"):
        SPACE.check({"share": 0.4})
