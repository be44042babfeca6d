"""Fronts and crowding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.search.pareto import along, crowding, dominates, first_front, fronts, matrix, select

tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 6).map(float), min_size=width, max_size=width), min_size=1, max_size=20)
).map(np.array)


@given(tables)
def test_candidate_is_in_one_front_and_beaten_only_by_earlier_ones(values: np.ndarray) -> None:
    ranked = fronts(values)
    assert sorted(i for front in ranked for i in front) == list(range(len(values)))
    beats = dominates(values)
    for number, front in enumerate(ranked):
        assert not beats[np.ix_(front, front)].any()
        if number:
            assert beats[np.ix_(ranked[number - 1], front)].any(axis=0).all(), "each is beaten from the front just before"


@given(tables)
def test_the_first_front_is_the_same_without_the_others(values: np.ndarray) -> None:
    assert first_front(values) == fronts(values)[0]


@given(tables, st.integers(0, 1000))
def test_in_every_direction_the_best_is_on_the_front(values: np.ndarray, seed: int) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(values.shape[1]))
    assert int(np.argmax(along(values, weights))) in first_front(values)


@given(tables, st.integers(0, 25))
def test_selection_never_passes_over_one_for_another_that_it_beats(values: np.ndarray, places: int) -> None:
    chosen = select(values, places)
    assert len(chosen) == len(set(chosen)) == min(places, len(values))
    left = [i for i in range(len(values)) if i not in chosen]
    assert not dominates(values)[np.ix_(left, chosen)].any()


def test_the_ends_of_a_front_are_kept_and_the_crowded_middle_goes() -> None:
    values = matrix([[1.0, 10.0], [2.0, 8.0], [2.1, 7.9], [2.2, 7.8], [6.0, 1.0]], ["min", "min"])
    assert fronts(values) == [[0, 1, 2, 3, 4]]
    assert {0, 4} <= set(select(values, 3))
    assert math.isinf(crowding(values)[0])
    assert 2 not in select(values, 4)


def test_a_direction_turns_the_comparison() -> None:
    rows = [[100.0, 4.0], [200.0, 2.0]]
    assert fronts(matrix(rows, ["min", "max"])) == [[0], [1]]
    assert fronts(matrix(rows, ["max", "max"])) == [[0, 1]]


@pytest.mark.parametrize(
    ("rows", "directions", "named"),
    [([[1.0]], ["up"], "'up'"), ([[1.0, 2.0]], ["max"], "2 objectives"), ([[math.nan]], ["max"], "nan")],
)
def test_bad_objectives_are_refused(rows: list[list[float]], directions: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        matrix(rows, directions)
