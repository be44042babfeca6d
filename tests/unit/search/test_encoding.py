"""Configurations as rows of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.config import ParameterSpec
from tune_gpu.search.encoding import Encoding
from tune_gpu.space import SearchSpace

SPACE = SearchSpace.from_specs(
    {
        "share": ParameterSpec(target="", values=[0.4, 0.45, 0.5]),
        "model": ParameterSpec(target="", values=["tiny", "base"], kind="categorical"),
        "beam": ParameterSpec(target="", values=[1, 3, 5], when={"model": ["base"]}),
        "rate": ParameterSpec(target="", low=0.1, high=10.0, log=True),
    }
)
FINITE = SearchSpace.from_specs(
    {
        "model": ParameterSpec(target="", values=["tiny", "base"], kind="categorical"),
        "beam": ParameterSpec(target="", values=[1, 3, 5], when={"model": ["base"]}),
        "flag": ParameterSpec(target="", values=[True, False, 1]),
    }
)


@given(st.integers(0, 2**32))
def test_random_rows_offspring_and_neighbours_are_configurations_of_the_space(seed: int) -> None:
    rng, encoding = np.random.default_rng(seed), Encoding(SPACE)
    rows = encoding.random(5, rng)
    for row in np.concatenate([rows, encoding.offspring(rows, 20, rng), encoding.neighbours(rows[:1], rng)]):
        assert encoding.decode(row) in SPACE


@given(st.integers(0, 2**32))
def test_a_configuration_survives_its_code(seed: int) -> None:
    encoding = Encoding(FINITE)
    params = FINITE.sample(np.random.default_rng(seed))
    again = encoding.decode(encoding.encode(params))
    assert again == params
    assert [type(value) for value in again.values()] == [type(value) for value in params.values()]


def test_the_table_holds_every_configuration_once() -> None:
    encoding = Encoding(FINITE)
    table = encoding.table(1000)
    assert table is not None
    assert {FINITE.key(encoding.decode(row)) for row in table} == {FINITE.key(params) for params in FINITE.enumerate()}
    assert len(table) == FINITE.size
    assert encoding.table(3) is None
    assert Encoding(SPACE).table(1000) is None


def test_next_in_order_is_nearer_than_far_and_all_categories_are_equally_far() -> None:
    space = SearchSpace.from_specs(
        {"x": ParameterSpec(target="", values=[1, 2, 4]), "c": ParameterSpec(target="", values=["a", "b", "z"], kind="categorical")})
    encoding = Encoding(space)

    def distance(one: dict[str, object], other: dict[str, object]) -> float:
        rows = encoding.features(np.array([encoding.encode(one), encoding.encode(other)]))
        return float(np.linalg.norm(rows[0] - rows[1]))

    assert distance({"x": 1, "c": "a"}, {"x": 2, "c": "a"}) < distance({"x": 1, "c": "a"}, {"x": 4, "c": "a"})
    assert distance({"x": 1, "c": "a"}, {"x": 1, "c": "z"}) == distance({"x": 1, "c": "b"}, {"x": 1, "c": "z"})
