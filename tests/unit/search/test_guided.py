"""The guided tournament keeps R-Zero's invariants and needs fewer evaluations than chance."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Candidate, Result, Tournament

SPECS = {name: ParameterSpec(target="", values=list(range(10))) for name in "abcd"}


def fitness(params: Any) -> float:
    return -sum((params[name] - target) ** 2 for name, target in zip("abcd", (7, 2, 5, 8), strict=True))


def run(tournament: Tournament, score: Any = fitness, batch: int = 1) -> list[Candidate]:
    seen: list[Candidate] = []
    while not tournament.finished:
        asked: list[Candidate] = []
        while len(asked) < batch and (candidate := tournament.ask()) is not None:
            asked.append(candidate)
        for candidate in asked:
            outcome = score(candidate.params)
            tournament.tell(candidate.candidate_id, outcome if isinstance(outcome, Result) else Result("ok", outcome, n_windows=1))
        seen += asked
    return seen


def new(seed: int = 0, generations: int = 10, space: SearchSpace | None = None, **rest: Any) -> Tournament:
    return Tournament(space or SearchSpace.from_specs(SPECS), SearchSettings(algorithm="rzero", seed=seed, generations=generations), **rest)


@given(st.integers(0, 1000), st.sampled_from([1, 4]))
@hypothesis_settings(max_examples=3, deadline=None)
def test_every_generation_has_a_fresh_candidate_and_no_duplicate(seed: int, batch: int) -> None:
    tournament = new(seed, 4)
    seen = run(tournament, batch=batch)
    assert len(seen) == 2 + 3 * 4
    assert all(c.params in SearchSpace.from_specs(SPECS) for c in seen)
    fresh = [tuple(c.params.values()) for c in seen if c.origin != "elite"]
    assert len(fresh) == len(set(fresh))
    for number in range(1, 4):
        assert any(c.origin == "fresh" for c in seen if c.generation == number)
    assert len(tournament.survivors) == 4


def scrambled(seed: int, order: int, asynchronous: bool, restored_after: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    """What is proposed with four slots that fall free in a random order (the same for the same `order`), as it is proposed."""
    def fresh() -> Tournament:
        return Tournament(SearchSpace.from_specs(SPECS), SearchSettings(algorithm="rzero", seed=seed, generations=4, asynchronous=asynchronous))

    tournament, rng = fresh(), np.random.default_rng(order)
    seen: list[tuple[str, dict[str, Any]]] = []
    live: list[Candidate] = []
    elite = -float("inf")
    while not tournament.finished:
        if len(seen) == restored_after:
            state, tournament = json.loads(json.dumps(tournament.state_dict())), fresh()
            tournament.load_state_dict(state)
        while len(live) < 4 and (candidate := tournament.ask()) is not None:
            live.append(candidate)
            seen.append((candidate.candidate_id, candidate.params))
        if not live:
            break
        done = live.pop(int(rng.integers(len(live))))
        tournament.tell(done.candidate_id, Result("ok", fitness(done.params), n_windows=1))
        best = tournament.best()
        assert best is not None
        assert best.fitness is not None
        assert best.fitness >= elite, "the elite is never lost"
        elite = best.fitness
    return seen


@pytest.mark.parametrize("asynchronous", [True, False])
@given(seed=st.integers(0, 1000), order=st.integers(0, 1000))
@hypothesis_settings(max_examples=2, deadline=None, phases=[Phase.generate])
def test_same_seed_and_results_propose_the_same_after_a_restore(asynchronous: bool, seed: int, order: int) -> None:
    whole = scrambled(seed, order, asynchronous)
    assert scrambled(seed, order, asynchronous) == whole
    if not asynchronous:
        assert sorted(scrambled(seed, order + 1, asynchronous), key=str) == sorted(whole, key=str), "within a generation no order counts"
    assert scrambled(seed, order, asynchronous, restored_after=10) == whole


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


def flaky(number: int, params: Any) -> Result:
    """Every ninth evaluation fails for no reason of the candidate's, and a corner of the space never runs."""
    if number % 9 == 8:
        return Result("failed", transient=True)
    return Result("failed") if params["a"] > 7 and params["b"] > 4 else Result("ok", fitness({"d": 8} | params), n_windows=1)


def plain(_number: int, params: Any) -> Result:
    return Result("ok", fitness(params), n_windows=1)


def proposed(tournament: Tournament, numbers: range, outcome: Any = flaky) -> list[Any]:
    seen = []
    for number in numbers:
        if (candidate := tournament.ask()) is None:
            break
        seen.append(candidate.params)
        tournament.tell(candidate.candidate_id, outcome(number, candidate.params))
    return seen


@pytest.mark.parametrize("parameters", ["abc", "abcd"], ids=["scored whole", "too large for that"])
@given(seed=st.integers(0, 1000), at=st.integers(1, 59))
@hypothesis_settings(max_examples=6, deadline=None, phases=[Phase.generate])
def test_a_restore_at_any_moment_changes_nothing(parameters: str, seed: int, at: int) -> None:
    """Between two growings of the forest, with known constraints, failures, and in spaces that are scored whole."""
    def fresh() -> Tournament:
        return new(seed, 16, SearchSpace.from_specs({name: SPECS[name] for name in parameters}, allowed=lambda params: params["a"] + params["c"] < 15))

    tournament = fresh()
    before = proposed(tournament, range(at))
    later = fresh()
    later.load_state_dict(json.loads(json.dumps(tournament.state_dict())))
    assert before + proposed(later, range(at, 60)) == proposed(fresh(), range(60))


def test_a_restore_between_proposals_of_one_screening_changes_nothing() -> None:
    whole = new(2, 60)
    proposed(whole, range(141), plain)
    steps = [(json.loads(json.dumps(whole.state_dict())), proposed(whole, range(1), plain)[0]) for _ in range(9)]
    for state, following in steps:
        later = new(2, 60)
        later.load_state_dict(state)
        assert proposed(later, range(1), plain) == [following]


def test_after_many_results_too_a_new_best_is_followed_at_once() -> None:
    """Whatever earlier screenings had found beside their first: one of the next four proposals is a step from the new best."""
    whole = new(2, 60)
    proposed(whole, range(140), plain)
    for _ in range(8):
        state = json.loads(json.dumps(whole.state_dict()))
        proposed(whole, range(1), plain)
        surprised = new(2, 60)
        surprised.load_state_dict(state)
        record = proposed(surprised, range(1), lambda _number, _params: Result("ok", 100.0, n_windows=1))[0]
        following = proposed(surprised, range(4), plain)
        assert min(sum(params[name] != record[name] for name in "abcd") for params in following) == 1


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


def test_the_floor_of_a_bowl_in_six_ranges_is_found_in_sixty_evaluations() -> None:
    names = [f"x{i}" for i in range(6)]
    space = SearchSpace.from_specs({name: ParameterSpec(target="", low=-5.0, high=5.0) for name in names})

    def depth(params: Any) -> float:
        return -float(sum((1 + i) * (params[name] - 1.3) ** 2 for i, name in enumerate(names)))

    tournament = new(0, 16, space)
    run(tournament, depth)
    best = tournament.best()
    assert best is not None
    assert best.fitness is not None
    rng = np.random.default_rng(0)
    by_chance = max(depth(dict(zip(names, rng.uniform(-5.0, 5.0, 6), strict=True))) for _ in range(60))
    assert best.fitness > 0.002 * by_chance, "a five-hundredth of what is left after as many random draws"


@pytest.mark.parametrize("log", [False, True])
def test_in_ranges_nothing_comes_twice_but_to_be_measured_again(log: bool) -> None:
    """A step in a range there and back ends where it began, but for the last bit of its position."""
    space = SearchSpace.from_specs({name: ParameterSpec(target="", low=1.0, high=9.0, log=log) for name in "ab"})
    tournament = new(generations=25, space=space)
    seen = run(tournament, lambda params: -abs(params["a"] - 3.0) - abs(params["b"] - 9.0))
    known = [tuple(round(value, 6) for value in c.params.values()) for c in seen if c.origin != "elite"]
    assert len(known) == len(set(known))


def test_first_proposals_lie_apart_in_tables_and_avoid_corners() -> None:
    """The first of a table lie far apart; the first in ranges are not driven into the corners."""
    table = SearchSpace.from_specs({f"x{i}": ParameterSpec(target="", values=[v / 10 for v in range(11)]) for i in range(4)})
    ranges = SearchSpace.from_specs({f"x{i}": ParameterSpec(target="", low=0.0, high=1.0) for i in range(4)})

    def outwards(space: SearchSpace) -> float:
        early = [c for seed in range(12) for c in run(new(seed, 2, space), lambda params: sum(params.values()))[:6]]
        return float(np.mean([abs(value - 0.5) for c in early for value in c.params.values()]))

    assert outwards(table) > 0.31, "uniform values are 0.27 from the middle in a table of 11"
    assert outwards(ranges) == pytest.approx(0.25, abs=0.04)


GRID = SearchSpace.from_specs({name: ParameterSpec(target="", values=list(range(8))) for name in "abcd"})


def test_as_long_as_all_measure_the_same_what_follows_is_drawn_at_random() -> None:
    """Of random draws a quarter of the values are the first or the last of their parameter; what lies far from all others is there more often."""
    at_the_edge = [value in (0, 7) for candidate in run(new(space=GRID), lambda _params: 1.0)[:30] for value in candidate.params.values()]
    assert np.mean(at_the_edge) < 0.45


def at_an_edge(outcomes: list[float | None], places: range) -> float:
    """Share of the values that are the first or the last of their parameter, in these places of searches whose results are these."""
    edges = []
    for seed in range(12):
        tournament = new(seed=seed, space=GRID)
        for place in range(places.stop):
            candidate = tournament.ask()
            assert candidate is not None
            edges += [value in (0, 7) for value in candidate.params.values()] if place in places else []
            outcome = outcomes[place % len(outcomes)]
            tournament.tell(candidate.candidate_id, Result("failed") if outcome is None else Result("ok", outcome))
    return float(np.mean(edges))


def finds_the_box(seed: int) -> bool:
    """All costs 2 but for a box of a sixteenth of the space, where it is 1.2; with 10 % of noise."""
    rng, found = np.random.default_rng(seed), []

    def score(params: Any) -> float:
        found.append(max(abs(params[name] - at) for name, at in zip("abcd", (7, 2, 5, 4), strict=True)) <= 2)
        return -(1.2 if found[-1] else 2.0) * (1.0 + 0.1 * rng.normal())

    tournament = new(seed)
    tournament.plan(60)
    run(tournament, score)
    return any(found)


def test_luck_on_a_plateau_is_not_followed() -> None:
    """Sixty random draws find it in 98 of a hundred searches; those that follow luck do in seven of sixteen."""
    assert sum(finds_the_box(seed) for seed in range(16)) >= 11


def test_corners_are_left_after_two_equal_measurements() -> None:
    """A quarter of what is drawn at random is at an edge, and most of what lies far from all others."""
    assert at_an_edge([1.0, 2.0, 3.0, 4.0, 5.0], range(2, 5)) > 0.6
    assert at_an_edge([1.0, 2.0, None, 3.0, 4.0, 5.0], range(3, 6)) > 0.6, "a failure among others says little"
    assert at_an_edge([1.0, 1.0, 1.0, 1.0, 1.0], range(2, 5)) < 0.4


def within_a_band(params: Any) -> float | None:
    """It runs only (12 % do) where no value is near an end of its range, and none far from the others."""
    values = list(params.values())
    runs = 2.5 <= np.mean(values) <= 5.0 and max(values) - min(values) <= 3
    return -sum((value - 4.0) ** 2 for value in values) if runs else None


def test_where_most_fails_it_soon_finds_what_runs() -> None:
    """Random draws would find 3.5 in thirty."""
    found = []
    for seed in range(6):
        tournament = new(seed=seed, space=GRID)
        for _ in range(30):
            candidate = tournament.ask()
            assert candidate is not None
            value = within_a_band(candidate.params)
            found.append(value is not None)
            tournament.tell(candidate.candidate_id, Result("failed") if value is None else Result("ok", value))
    assert np.mean(found) > 0.16


def test_a_listed_space_proposes_its_members_only() -> None:
    members = [dict(zip("abcd", (i % 10, i // 10, (3 * i) % 10, (7 * i) % 10), strict=True)) for i in range(100)]
    space = SearchSpace.from_specs(SPECS, configurations=members)
    assert all(c.params in members for c in run(new(0, 5, space)))


def noisy() -> Any:
    """`fitness` behind noise, drawn from a seed."""
    rng = np.random.default_rng(0)
    return lambda params: Result("ok", fitness(params) + float(rng.normal(0.0, 20.0)), stderr=20.0, n_windows=1)


def closing(asynchronous: bool) -> list[Candidate]:
    """A noisy search of ten generations."""
    settings = SearchSettings(algorithm="rzero", seed=0, generations=10, asynchronous=asynchronous)
    return run(Tournament(SearchSpace.from_specs(SPECS), settings), noisy())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_noise_makes_the_last_fifth_repeat_two_and_keep_one_fresh(asynchronous: bool) -> None:
    """With noise, the last fifth of the generations measures two candidates again, and still has a fresh one."""
    seen = closing(asynchronous)
    origins = {number: [c.origin for c in seen if c.generation == number] for number in range(1, 10)}
    assert all(origins[number].count("elite") <= 1 for number in range(1, 8))
    assert all(origins[number].count("elite") == 2 for number in (8, 9))
    assert all("fresh" in origins[number] and len(origins[number]) == 4 for number in range(1, 10))


@pytest.mark.parametrize(("rise", "measured_again"), [
    (3.0, [0] * 7 + [1]),
    (0.2, [1] * 2 + [0] * 4 + [2] * 2),  # so slow a climb shows after a few
    (0.0, [1] * 6 + [2] * 2),
])
def test_climbing_search_repeats_its_elite_later(rise: float, measured_again: list[int]) -> None:
    """Every two evaluations are equal, so that there is a challenger, and higher than those before by `rise` standard errors."""
    number = count()
    seen = run(new(0, 10), lambda params: Result("ok", rise * (next(number) // 2), stderr=1.0, n_windows=1))
    assert [[c.origin for c in seen if c.generation == number].count("elite") for number in range(2, 10)] == measured_again


def test_two_repeated_side_by_side_are_the_leader_and_its_rival() -> None:
    last = [c.params for c in closing(asynchronous=False) if c.generation == 9 and c.origin == "elite"]
    assert last[0] != last[1]


def test_a_search_that_is_made_longer_closes_later() -> None:
    tournament = new(generations=2)
    tournament.plan(2 + 9 * 4)
    seen = run(tournament, noisy())
    assert all([c.origin for c in seen if c.generation == number].count("elite") <= 1 for number in range(1, 8))
