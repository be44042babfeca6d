"""Survivors of a tournament, and the front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.evaluations import Standing
from tune_gpu.search.selection import front, survivors

VALUES = st.floats(-1e6, 1e6)


def standing(fitness: float | None, violation: float = 0.0, **objectives: float) -> Standing:
    return Standing({}, fitness, violation, 1, 1, objectives)


STANDINGS = st.lists(st.builds(lambda f, v, a, b: standing(f, v, a=a, b=b), st.none() | VALUES, st.floats(0, 10), VALUES, VALUES), max_size=12)


def test_survivors_are_the_fittest_then_those_that_miss_least() -> None:
    assert survivors([standing(None, 2.0), standing(1.0), standing(None, 1.0), standing(3.0)], 3, {}) == [3, 1, 2]


def test_equal_competitors_survive_in_their_order() -> None:
    assert survivors([standing(1.0), standing(1.0), standing(1.0)], 2, {}) == [0, 1]


def test_pareto_survivors_are_the_front_before_the_fittest() -> None:
    """The second is beaten in both objectives, although its fitness is the highest."""
    competitors = [standing(0.1, a=5.0, b=1.0), standing(0.9, a=4.0, b=2.0), standing(0.2, a=6.0, b=3.0)]
    assert sorted(survivors(competitors, 2, {"a": "max", "b": "min"})) == [0, 2]


@given(STANDINGS, st.integers(0, 12), st.sampled_from([{}, {"a": "max", "b": "min"}]))
def test_infeasible_survives_only_after_all_feasible(found: list[Standing], places: int, directions: dict[str, str]) -> None:
    chosen = survivors(found, places, directions)
    assert len(chosen) == len(set(chosen)) == min(places, len(found))
    left_out = set(range(len(found))) - set(chosen)
    if any(found[i].fitness is None for i in chosen):
        assert all(found[i].fitness is None for i in left_out)


@given(STANDINGS)
def test_front_is_feasible_and_unbeaten(found: list[Standing]) -> None:
    directions = {"a": "max", "b": "min"}
    feasible = [one for one in found if one.fitness is not None]
    chosen = front(found, directions)
    assert bool(chosen) == bool(feasible)
    for one in chosen:
        assert one.fitness is not None
        mine = one.objectives
        assert not any(
            other.objectives["a"] >= mine["a"] and other.objectives["b"] <= mine["b"] and other.objectives != mine for other in feasible)


def test_front_without_objectives_is_empty() -> None:
    assert front([standing(1.0)], {}) == []
