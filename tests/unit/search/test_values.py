"""Which values are one."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.values import distinct, equal, identical


@pytest.mark.parametrize(
    ("one", "other", "are_one", "may_stand_for_it"),
    [
        (1, 1.0, False, True),
        (1, True, False, False),
        (0.0, -0.0, True, True),
        (math.nan, float("nan"), True, False),
        ([1, 2], [1, 2], True, True),
        ([1], [1.0], False, True),
        ((1, (2,)), [1, [2]], False, True),
        ({"a": 1}, {"a": 1}, True, True),
        (math.sin, math.cos, False, False),
        (np.arange(3), np.arange(3), True, True),
        (np.arange(3), np.arange(4), False, False),
        ({"a": np.arange(3)}, {"a": np.arange(3)}, False, False),
    ],
)
def test_what_is_one_value_and_what_may_stand_for_it(one: Any, other: Any, are_one: bool, may_stand_for_it: bool) -> None:
    assert (identical(one, other), equal(one, other)) == (are_one, may_stand_for_it)
    assert identical(one, one)


def test_each_value_is_kept_once_in_its_order() -> None:
    assert repr(distinct([2, 1, 1.0, True, [1], 2, [1], "1", math.sin, math.sin])) == repr([2, 1, 1.0, True, [1], "1", math.sin])


def odd_space() -> SearchSpace:
    values = [math.sin, dict, [len], {"b", "a", "c"}, object(), (1, 2), SearchSpace.sample]
    return SearchSpace.from_specs({"x": ParameterSpec(target="", values=values, kind="categorical")})


def test_fingerprint_of_functions_is_the_same_in_every_process() -> None:
    code = "from tests.unit.search.test_values import odd_space; print(odd_space().fingerprint())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == odd_space().fingerprint()
    assert there != SearchSpace.from_specs({"x": ParameterSpec(target="", values=[math.cos], kind="categorical")}).fingerprint()
