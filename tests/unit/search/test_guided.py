"""The guided tournament keeps R-Zero's invariants and needs fewer evaluations than chance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tune_gpu.config import ParameterSpec, SearchSettings
from tune_gpu.space import SearchSpace
from tune_gpu.tournament import Candidate, Result, Tournament

SPECS = {name: ParameterSpec(target="", values=list(range(10))) for name in "abcd"}


def fitness(params: Any) -> float:
    return -sum((params[name] - target) ** 2 for name, target in zip("abcd", (7, 2, 5, 8), strict=True))


def run(tournament: Tournament, score: Any = fitness, batch: int = 1) -> list[Candidate]:
    seen: list[Candidate] = []
    while not tournament.finished:
        asked = []
        while len(asked) < batch and (candidate := tournament.ask()) is not None:
            asked.append(candidate)
        for candidate in asked:
            told = score(candidate.params)
            tournament.tell(candidate.candidate_id, told if isinstance(told, Result) else Result("ok", told, n_windows=1))
        seen += asked
    return seen


def new(seed: int = 0, generations: int = 10, space: SearchSpace | None = None, **rest: Any) -> Tournament:
    return Tournament(space or SearchSpace.from_specs(SPECS), SearchSettings(algorithm="rzero", seed=seed, generations=generations), **rest)


@given(st.integers(0, 1000), st.sampled_from([1, 4]))
@hypothesis_settings(max_examples=3, deadline=None)
def test_every_generation_has_a_fresh_candidate_and_nothing_new_comes_twice(seed: int, batch: int) -> None:
    tournament = new(seed, 4)
    seen = run(tournament, batch=batch)
    assert len(seen) == 2 + 3 * 4
    assert all(c.params in SearchSpace.from_specs(SPECS) for c in seen)
    fresh = [tuple(c.params.values()) for c in seen if c.origin != "elite"]
    assert len(fresh) == len(set(fresh))
    for number in range(1, 4):
        assert any(c.origin == "fresh" for c in seen if c.generation == number)
    assert len(tournament.survivors) == 4


def test_it_finds_what_chance_does_not() -> None:
    tournament = new(0, 9)
    seen = run(tournament)
    found = tournament.best()
    assert found is not None
    assert found.fitness is not None
    rng = np.random.default_rng(0)
    chance = [max(fitness(dict(zip("abcd", rng.integers(10, size=4), strict=True))) for _ in seen) for _ in range(200)]
    assert found.fitness > np.quantile(chance, 0.9)


def test_only_the_order_of_the_measurements_counts() -> None:
    assert run(new(3, 5)) == run(new(3, 5), lambda params: 1e-3 * fitness(params) ** 3)


def test_a_saved_search_proposes_what_it_would_have_proposed() -> None:
    whole = run(new(5, 5))
    tournament, seen = new(5, 5), []
    for _ in range(11):
        candidate = tournament.ask()
        assert candidate is not None
        seen.append(candidate)
        tournament.tell(candidate.candidate_id, Result("ok", fitness(candidate.params), n_windows=1))
    later = new(5, 5)
    later.load_state_dict(json.loads(json.dumps(tournament.state_dict())))
    assert seen + run(later) == whole


def test_a_known_constraint_is_never_proposed() -> None:
    space = SearchSpace.from_specs(SPECS, allowed=lambda params: params["a"] + params["b"] < 8)
    assert all(c.params["a"] + c.params["b"] < 8 for c in run(new(0, 5, space)))


def test_launches_do_not_keep_failing_for_one_reason() -> None:
    def score(params: Any) -> Result:
        return Result("failed", violation=1.0) if params["a"] > 4 else Result("ok", float(fitness(params)), n_windows=1)

    seen = run(new(1, 9), score)
    late = seen[len(seen) // 2:]
    failures = sum(c.params["a"] > 4 for c in late)
    assert failures < 0.35 * len(late), "chance fails in half, and the optimum lies among the failures"


def test_when_everything_fails_it_still_ends() -> None:
    tournament = new(0, 6)
    assert len(run(tournament, lambda _params: Result("failed", violation=1.0))) == 22
    assert tournament.best() is None


def test_a_small_space_is_measured_whole_and_then_it_says_so() -> None:
    tournament = new(0, 30, SearchSpace.from_specs({"a": SPECS["a"]}))
    seen = run(tournament, lambda params: -abs(params["a"] - 3))
    assert {c.params["a"] for c in seen} == set(range(10))
    assert tournament.ended_because == "space exhausted"


@pytest.mark.parametrize("log", [False, True])
def test_ranges_are_searched_too(log: bool) -> None:
    space = SearchSpace.from_specs({"x": ParameterSpec(target="", low=1.0, high=100.0, log=log), "a": SPECS["a"]})
    tournament = new(0, 7, space)
    seen = run(tournament, lambda params: -abs(params["x"] - 30.0) - params["a"])
    assert all(c.params in space for c in seen)
    best = tournament.best()
    assert best is not None
    assert abs(best.params["x"] - 30.0) < 12.0


def test_a_listed_space_proposes_its_members_only() -> None:
    members = [dict(zip("abcd", (i % 10, i // 10, (3 * i) % 10, (7 * i) % 10), strict=True)) for i in range(100)]
    space = SearchSpace.from_specs(SPECS, configurations=members)
    assert all(c.params in members for c in run(new(0, 5, space)))
