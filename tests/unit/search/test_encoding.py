"""Configurations as rows of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.encoding import Encoding
from tune_gpu.search.space import SearchSpace

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
def test_random_rows_offspring_and_neighbours_are_configurations(seed: int) -> None:
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


def test_order_is_near_or_far_and_categories_are_equally_far() -> None:
    space = SearchSpace.from_specs(
        {"x": ParameterSpec(target="", values=[1, 2, 4]), "c": ParameterSpec(target="", values=["a", "b", "z"], kind="categorical")})
    encoding = Encoding(space)

    def distance(one: dict[str, object], other: dict[str, object]) -> float:
        rows = encoding.features(np.array([encoding.encode(one), encoding.encode(other)]))
        return float(np.linalg.norm(rows[0] - rows[1]))

    assert distance({"x": 1, "c": "a"}, {"x": 2, "c": "a"}) < distance({"x": 1, "c": "a"}, {"x": 4, "c": "a"})
    assert distance({"x": 1, "c": "a"}, {"x": 1, "c": "z"}) == distance({"x": 1, "c": "b"}, {"x": 1, "c": "z"})


LONG = {
    "n": ParameterSpec(target="", low=0, high=2**31, integer=True),
    "units": ParameterSpec(target="", low=1, high=100_000, integer=True, log=True),
    "layers": ParameterSpec(target="", low=1, high=64, integer=True, log=True, when={"units": [1, 8, 64]}),
    "share": ParameterSpec(target="", low=0.0, high=1.0, step=1e-6, when={"n": [7]}),
    "mode": ParameterSpec(target="", values=[[1], [2]], kind="categorical"),
}
STEPPED = SearchSpace.from_specs(LONG)


@given(st.integers(0, 2**32))
def test_configuration_of_ranges_in_steps_is_exactly_one_row(seed: int) -> None:
    rng, encoding = np.random.default_rng(seed), Encoding(STEPPED)
    known = [{"n": 7, "units": 8, "layers": 3, "share": 0.25, "mode": [2]}, {"n": 0, "units": 1, "layers": 64, "mode": [1]}]
    rows = np.concatenate([encoding.random(5, rng), [encoding.encode(params) for params in known]])
    for row in np.concatenate([rows, encoding.offspring(rows, 30, rng), encoding.neighbours(rows, rng)]):
        params = encoding.decode(row)
        assert params in STEPPED
        assert encoding.encode(params).tobytes() == row.tobytes()
        assert encoding.features(row[None, :]).min() >= 0.0
        assert encoding.features(row[None, :]).max() <= 1.0
    assert [encoding.decode(encoding.encode(params)) for params in known] == known


def test_long_range_is_left_by_the_next_steps_and_by_far_ones() -> None:
    encoding = Encoding(SearchSpace.from_specs({name: LONG[name] for name in ("n", "units")}))
    near = encoding.neighbours(encoding.encode({"n": 1000, "units": 2})[None, :], np.random.default_rng(0))
    tried = [encoding.decode(row) for row in near]
    assert len(tried) == 20, "however many steps there are"
    assert {999, 1001} < {params["n"] for params in tried}
    assert max(params["n"] for params in tried) > 2**28
    assert {1, 3} < {params["units"] for params in tried if params["n"] == 1000}


def test_whole_numbers_lie_as_far_apart_as_their_logarithms() -> None:
    encoding = Encoding(SearchSpace.from_specs({"n": ParameterSpec(target="", low=1, high=64, integer=True, log=True)}))
    at = encoding.features(np.array([encoding.encode({"n": 2**i}) for i in range(7)]))[:, 0]
    assert at.tolist() == pytest.approx([i / 6 for i in range(7)])
    table = encoding.table(100)
    assert table is not None
    masses = encoding.masses(table)
    assert masses is not None
    assert masses[0] == pytest.approx(np.log(2) / np.log(65))
    drawn = [encoding.decode(row)["n"] for row in encoding.random(1000, np.random.default_rng(0))]
    assert 5 < np.median(drawn) < 11
    children = encoding.offspring(np.array([encoding.encode({"n": 64})]), 300, np.random.default_rng(0))
    assert np.median([encoding.decode(row)["n"] for row in children]) < 61, "next to 64 are not only 63 and 62"


def test_a_pickle_of_an_earlier_version_is_brought_up_to_date() -> None:
    encoding = Encoding.__new__(Encoding)
    encoding.__setstate__({"space": SPACE, "_levels": []})
    assert encoding.decode(encoding.encode({"share": 0.4, "model": "base", "beam": 3, "rate": 1.0})) == {
        "share": 0.4, "model": "base", "beam": 3, "rate": pytest.approx(1.0)}
