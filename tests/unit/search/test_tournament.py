"""R-Zero's invariants."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.experiment.replay import replay
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Candidate, Result, Tournament

DEFAULT = {
    "util": ParameterSpec(target="vllm.gpu_memory_utilization", values=[0.40, 0.45, 0.50, 0.55, 0.60]),
    "size": ParameterSpec(target="whisper.model", values=["tiny", "base", "small"]),
}
BASELINE = {"util": 0.50, "size": "base"}


def space(specs: dict[str, ParameterSpec] | None = None) -> SearchSpace:
    return SearchSpace.from_specs(specs or DEFAULT)


def fitness(params: Any) -> float:
    return 1.0 - abs(params["util"] - 0.45) - 0.1 * ["tiny", "base", "small"].index(params["size"])


def run(tournament: Tournament, score: Any = fitness) -> list[Candidate]:
    seen = []
    while (candidate := tournament.ask()) is not None:
        seen.append(candidate)
        tournament.tell(
            candidate.candidate_id,
            score(candidate.params) if isinstance(score(candidate.params), Result) else Result("ok", score(candidate.params), n_windows=1),
        )
    return seen


@pytest.mark.parametrize("seed", range(10))
def test_classic_is_2_4_4_4_with_an_elite_two_offspring_and_one_fresh(seed: int) -> None:
    tournament = Tournament(space(), SearchSettings(algorithm="classic", seed=seed), baseline=BASELINE)
    seen = run(tournament)
    by_generation = [[c for c in seen if c.generation == g] for g in range(4)]
    assert [len(members) for members in by_generation] == [2, 4, 4, 4]
    assert sorted(c.origin for c in by_generation[0]) == ["baseline", "initial"]
    for members in by_generation[1:]:
        assert sorted(c.origin for c in members) == ["elite", "fresh", "offspring", "offspring"]
    assert len({space().key(c.params) for c in seen}) == 11
    assert tournament.finished
    assert tournament.ended_because == "generations"
    assert all(len(ids) == 2 for ids in tournament.survivors)


@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=15, max_size=15))
@settings(max_examples=60, deadline=None)
def test_best_is_never_lost_and_only_the_elite_is_proposed_twice(seed: int, values: list[float]) -> None:
    grid = list(space().enumerate())
    tournament = Tournament(space(), SearchSettings(seed=seed))
    new, best_so_far = [], 0.0
    while (candidate := tournament.ask()) is not None:
        assert candidate.params in space()
        new += [space().key(candidate.params)] if candidate.origin != "elite" else []
        value = values[grid.index(candidate.params)]
        tournament.tell(candidate.candidate_id, Result("ok", value, n_windows=1))
        best_so_far = max(best_so_far, value)
        best = tournament.best()
        assert best is not None
        assert best.fitness == pytest.approx(best_so_far)
    assert len(new) == len(set(new))


def test_one_seed_proposes_the_same_as_long_as_the_measurements_rank_alike() -> None:
    first = run(Tournament(space(), SearchSettings(seed=7), baseline=BASELINE))
    again = run(Tournament(space(), SearchSettings(seed=7), baseline=BASELINE), lambda params: 0.01 * fitness(params) ** 3)
    assert first == again
    assert first != run(Tournament(space(), SearchSettings(seed=8), baseline=BASELINE))


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_results_may_come_in_any_order_within_a_generation(algorithm: str) -> None:
    whole_generations = SearchSettings(algorithm=algorithm, asynchronous=False, seed=3)

    def reversed_run() -> list[Candidate]:
        tournament = Tournament(space(), whole_generations)
        seen: list[Candidate] = []
        while not tournament.finished:
            batch = []
            while (candidate := tournament.ask()) is not None:
                batch.append(candidate)
            for candidate in reversed(batch):
                tournament.tell(candidate.candidate_id, Result("ok", fitness(candidate.params), n_windows=1))
            seen += batch
        return seen

    assert reversed_run() == run(Tournament(space(), whole_generations))


def test_candidates_of_one_engine_are_adjacent_the_running_one_first() -> None:
    seen = run(Tournament(space(), SearchSettings(seed=1), order_key=lambda params: ((params["util"],),)))
    for generation in range(4):
        engines = [c.params["util"] for c in seen if c.generation == generation]
        changes = sum(a != b for a, b in pairwise(engines))
        assert changes == len(set(engines)) - 1
    for number in range(1, 4):
        last = [c for c in seen if c.generation == number - 1][-1].params["util"]
        engines = [c.params["util"] for c in seen if c.generation == number]
        assert last not in engines or engines[0] == last


def test_failures_rank_below_everything_feasible_and_by_how_far_they_miss() -> None:
    def score(params: Any) -> Result:
        if params["size"] == "small":
            return Result("failed", violation=2.0)
        if params["size"] == "base":
            return Result("infeasible", violation=1.0)
        return Result("ok", 0.001, n_windows=1)

    tournament = Tournament(space(), SearchSettings(seed=0))
    run(tournament, score)
    sizes = [standing.params["size"] for standing in tournament.standings()]
    assert sizes == sorted(sizes, key=["tiny", "base", "small"].index)


def test_when_all_fail_there_is_no_best_and_the_run_still_ends() -> None:
    tournament = Tournament(space(), SearchSettings(seed=0))
    run(tournament, lambda _params: Result("failed", violation=1.0))
    assert tournament.finished
    assert tournament.best() is None


def test_a_transient_failure_says_nothing_of_its_candidate() -> None:
    one = space({"util": DEFAULT["util"]})
    tournament = Tournament(one, SearchSettings(seed=0, generations=6))
    first = tournament.ask()
    assert first is not None
    tournament.tell(first.candidate_id, Result("failed", transient=True))
    assert all(standing.params != first.params for standing in tournament.standings())
    seen = run(tournament, lambda params: params["util"])
    assert any(c.params == first.params for c in seen), "it may be proposed again"


def test_saved_search_remembers_a_replaced_transient_failure() -> None:
    """Another result has followed the transient failure."""
    def standings(restored: bool) -> list[Any]:
        tournament = Tournament(space(), SearchSettings(algorithm="classic", seed=4))
        first = tournament.ask()
        assert first is not None
        tournament.tell(first.candidate_id, Result("failed", transient=True))
        tournament.tell(first.candidate_id, Result("ok", 2.0, n_windows=1))
        if restored:
            state = json.loads(json.dumps(tournament.state_dict()))
            tournament = Tournament(space(), SearchSettings(algorithm="classic", seed=4))
            tournament.load_state_dict(state)
        run(tournament, lambda params: Result("failed", transient=True) if params == first.params else fitness(params))
        return tournament.standings()

    assert standings(restored=False)[0].n_evaluations == 4, "its second failure counts, and its third"
    assert standings(restored=True) == standings(restored=False)


@pytest.mark.parametrize("seed", range(3))
def test_offspring_differ_in_one_parameter_if_null_is_a_value(seed: int) -> None:
    own = space({"quantization": ParameterSpec(target="", values=[None, "awq", "fp8", "gptq"], kind="categorical"),
                 "util": ParameterSpec(target="", values=list(range(100)))})
    tournament = Tournament(own, SearchSettings(algorithm="classic", seed=seed, generations=8))
    while (candidate := tournament.ask()) is not None:
        if candidate.origin == "offspring":
            parents = [tournament.candidate(i).params for i in tournament.survivors[-1]]
            assert sum(all(value != parent[name] for parent in parents) for name, value in candidate.params.items()) <= 1
        tournament.tell(candidate.candidate_id, Result("ok", candidate.params["util"] + 100.0 * (candidate.params["quantization"] is None)))


@pytest.mark.parametrize("stderr", [math.nan, math.inf, -1.0, 1e200])
def test_a_standard_error_that_is_none_is_refused(stderr: float) -> None:
    with pytest.raises(ValueError, match="stderr="):
        Result("ok", 1.0, stderr, n_windows=3)


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_strict_constraint_does_not_exhaust_a_space(algorithm: str) -> None:
    """The constraint allows one configuration in thousands."""
    specs = {name: ParameterSpec(target="", values=list(range(32))) for name in "abcd"}
    own = SearchSpace.from_specs(specs, allowed=lambda params: (7 * params["a"] + 31 * params["b"] + 1009 * params["c"] + 3571 * params["d"]) % 2000 == 0)
    tournament = Tournament(own, SearchSettings(algorithm=algorithm, seed=1))
    seen = run(tournament, lambda params: float(params["a"]))
    assert len(seen) == 14
    assert tournament.ended_because == "generations"


@pytest.mark.parametrize("seed", range(3))
def test_what_fails_transiently_after_all_else_is_proposed_is_measured_too(seed: int) -> None:
    tournament = Tournament(space({"util": DEFAULT["util"]}), SearchSettings(seed=seed, generations=20))
    live: list[Candidate] = []
    while (candidate := tournament.ask()) is not None:
        live.append(candidate)
    assert len(live) == 5
    tournament.tell(live[-1].candidate_id, Result("failed", transient=True))
    again = tournament.ask()
    assert again is not None
    assert again.params == live[-1].params
    assert tournament.ask() is None
    for candidate in (*live[:-1], again):
        tournament.tell(candidate.candidate_id, Result("ok", candidate.params["util"], n_windows=1))
    assert tournament.ask() is None
    assert tournament.ended_because == "space exhausted"
    assert tournament.finished


def test_space_smaller_than_the_budget_is_measured_whole() -> None:
    """The run ends early."""
    tiny = space({"util": DEFAULT["util"]})
    tournament = Tournament(tiny, SearchSettings(seed=0, generations=50))
    seen = run(tournament, lambda params: params["util"])
    assert {c.params["util"] for c in seen} == {0.40, 0.45, 0.50, 0.55, 0.60}
    assert tournament.ended_because == "space exhausted"


def test_a_saved_search_goes_on_where_it_was() -> None:
    whole = run(Tournament(space(), SearchSettings(seed=5)))
    tournament = Tournament(space(), SearchSettings(seed=5))
    seen = []
    for _ in range(8):
        candidate = tournament.ask()
        assert candidate is not None
        seen.append(candidate)
        tournament.tell(candidate.candidate_id, Result("ok", fitness(candidate.params), n_windows=1))
    saved = json.loads(json.dumps(tournament.state_dict()))
    later = Tournament(space(), SearchSettings(seed=5))
    later.load_state_dict(saved)
    assert seen + run(later) == whole


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_a_replay_brings_a_fresh_search_to_where_it_ended(algorithm: str) -> None:
    whole_generations = SearchSettings(algorithm=algorithm, asynchronous=False, seed=5)
    whole = run(Tournament(space(), whole_generations))
    results = {c.candidate_id: (c.params, Result("ok", fitness(c.params), n_windows=1)) for c in whole[:8]}
    tournament = Tournament(space(), whole_generations)
    pending = replay(tournament, results)
    assert pending == whole[8:10]
    with pytest.raises(ValueError, match=r"this search|would be"):
        replay(Tournament(space(), replace(whole_generations, seed=6)), results)


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
@pytest.mark.parametrize(
    "values",
    [[[64, 64], [128, 128], [8]], [{"depth": 1}, {"depth": 2}, {}], [(1, 2), (3, 4), (5,)], [math.sin, dict, lambda: 1], [1, 1.0, True],
     [np.arange(3), np.arange(4), np.zeros(3)], [object(), b"b", "b"], [math.nan, None, 0]],
)
def test_a_saved_search_of_any_values_goes_on_where_it_was(algorithm: str, values: list[Any]) -> None:
    specs = {"x": ParameterSpec(target="", values=values, kind="categorical"), "n": ParameterSpec(target="", values=[1, 2, 3])}
    whole, later = (Tournament(space(specs), SearchSettings(algorithm=algorithm, seed=2), baseline={"x": values[1], "n": 2}) for _ in range(2))
    whole.add_evaluated({"x": values[2], "n": 3}, Result("ok", 0.5, n_windows=1))
    for _ in range(4):
        candidate = whole.ask()
        assert candidate is not None
        whole.tell(candidate.candidate_id, Result("ok", float(candidate.params["n"]), n_windows=1))
    later.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    rest, resumed = (run(tournament, lambda params: float(params["n"])) for tournament in (whole, later))
    assert [repr(candidate) for candidate in resumed] == [repr(candidate) for candidate in rest]
    tried = [candidate.params["x"] for candidate, _ in later.history]
    assert all(any(value is own for own in values) for value in tried), "the values themselves, not what JSON made of them"
    assert all(any(value is own for value in tried) for own in values)


def test_a_state_of_plain_values_is_saved_as_it_always_was() -> None:
    tournament = Tournament(space(), SearchSettings(), baseline=BASELINE)
    tournament.ask()
    assert tournament.state_dict()["candidates"] == [{"candidate_id": "g0-c0", "generation": 0, "origin": "baseline", "params": BASELINE, "asked_after": 0}]


def test_a_state_of_another_version_space_or_setting_is_refused() -> None:
    state = Tournament(space(), SearchSettings()).state_dict()
    other = space({"util": DEFAULT["util"]})
    for tournament, change, named in (
        (Tournament(space(), SearchSettings()), {"version": 99}, "version 99"),
        (Tournament(other, SearchSettings()), {}, "another space"),
        (Tournament(space(), SearchSettings(seed=1)), {}, "other settings"),
    ):
        with pytest.raises(UserError, match=named):
            tournament.load_state_dict(state | change)


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_what_is_known_from_elsewhere_is_part_of_a_saved_search(algorithm: str) -> None:
    whole, later = (Tournament(space(), SearchSettings(algorithm=algorithm, seed=3)) for _ in range(2))
    whole.add_evaluated(BASELINE, Result("ok", 0.5, n_windows=1))
    first = [whole.ask() for _ in range(2)]
    for candidate in first:
        assert candidate is not None
        whole.tell(candidate.candidate_id, Result("ok", fitness(candidate.params), n_windows=1))
    later.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert run(later) == (rest := run(whole))
    assert BASELINE not in [candidate.params for candidate in (*first, *rest) if candidate and candidate.origin != "elite"]


def test_results_from_elsewhere_that_do_not_fit_are_refused() -> None:
    informed = Tournament(space(), SearchSettings())
    informed.add_evaluated(BASELINE, Result("ok", 0.5))
    other = Tournament(space(), SearchSettings())
    other.add_evaluated(BASELINE, Result("ok", 0.6))
    with pytest.raises(UserError, match="other results from elsewhere"):
        other.load_state_dict(informed.state_dict())
    informed.ask()
    with pytest.raises(UserError, match="before the first proposal"):
        informed.add_evaluated(BASELINE, Result("ok", 0.5))
    with pytest.raises(ValueError, match="has no wer"):
        Tournament(space(), SearchSettings(objectives={"wer": "min"})).add_evaluated(BASELINE, Result("ok", 0.5))


def test_results_for_what_was_never_proposed_are_refused() -> None:
    tournament = Tournament(space(), SearchSettings())
    with pytest.raises(KeyError, match="never proposed"):
        tournament.tell("g9-c9", Result("ok", 1.0))
    candidate = tournament.ask()
    assert candidate is not None
    tournament.tell(candidate.candidate_id, Result("ok", 1.0))
    with pytest.raises(ValueError, match="has a result already"):
        tournament.tell(candidate.candidate_id, Result("ok", 1.0))


@pytest.mark.parametrize("fitness_value", [None, float("nan"), float("inf")])
def test_a_measurement_without_a_finite_fitness_cannot_be_ok(fitness_value: float | None) -> None:
    with pytest.raises(ValueError, match="finite fitness"):
        Result("ok", fitness_value)
    with pytest.raises(ValueError, match="has no fitness"):
        Result("failed", 1.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"survivors": 5}, r"search\.survivors=5: more than search\.tournament_size=4"),
        ({"tournament_size": 1}, r"search\.tournament_size=1"),
        ({"tournament_size": 10**9}, r"search\.tournament_size=1000000000: out of range. Set a number from 2 to 10000"),
        ({"initial": 10**9}, r"search\.initial=1000000000: out of range. Set a number from 1 to 10000"),
        ({"fresh": 0}, r"search\.fresh=0"),
        ({"fresh": 3}, "no offspring are left"),
        ({"generations": 0}, r"search\.generations=0"),
        ({"algorithm": "grid"}, r"search\.algorithm=grid"),
        ({"initial": 0}, r"search\.initial=0"),
        ({"recheck": -1}, r"search\.recheck=-1"),
    ],
)
def test_settings_that_make_no_tournament_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Tournament(space(), SearchSettings(**change))


def test_a_baseline_outside_its_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"baseline\.util=0\.9: not allowed"):
        Tournament(space(), SearchSettings(), baseline={"util": 0.9, "size": "tiny"})


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_points_are_measured_first_and_the_first_generation_grows_for_them(algorithm: str, asynchronous: bool) -> None:
    points = [{"util": 0.40, "size": "tiny"}, BASELINE, {"util": 0.60, "size": "small"}, {"util": 0.45, "size": "base"}]
    tournament = Tournament(
        space(), SearchSettings(algorithm=algorithm, asynchronous=asynchronous), baseline=BASELINE, points=points)
    planned = tournament.total_evaluations
    seen = run(tournament)
    first = [c for c in seen if c.generation == 0]
    assert [c.origin for c in first] == ["baseline", "initial", "initial", "initial"]
    assert [c.params for c in first] == [BASELINE, points[0], points[2], points[3]]
    assert len(seen) == planned == 16 if algorithm == "classic" else len(seen) <= planned
    with pytest.raises(UserError, match=r"points\[1\]\.util=0\.9"):
        Tournament(space(), SearchSettings(), points=[BASELINE, {"util": 0.9, "size": "tiny"}])


def luck(seed: int, recheck: int, asynchronous: bool, algorithm: str, generations: int = 4) -> tuple[Tournament, list[Candidate]]:
    """A search behind noise that is larger than most differences."""
    rng = np.random.default_rng(seed)
    tournament = Tournament(
        space(), SearchSettings(seed=seed, recheck=recheck, asynchronous=asynchronous, algorithm=algorithm, generations=generations))
    return tournament, run(tournament, lambda params: Result("ok", fitness(params) + float(rng.normal(0.0, 0.2)), stderr=0.2, n_windows=1))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_exhausted_space_leaves_no_empty_generation(asynchronous: bool) -> None:
    """The space is exhausted just when a generation would begin."""
    six = SearchSpace.from_specs({"x": ParameterSpec(target="", values=[1, 2, 3, 4, 5, 6])})
    tournament = Tournament(six, SearchSettings(algorithm="rzero", generations=4, asynchronous=asynchronous))
    run(tournament, lambda params: Result("ok", float(params["x"]), n_windows=1))
    assert tournament.ended_because == "space exhausted"
    assert [len(members) for members in tournament.state_dict()["generations"]] == [2, 4]


@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans(), st.sampled_from(["classic", "rzero"]), st.sampled_from([1, 4, 12]))
@settings(max_examples=60, deadline=None)
def test_a_winner_by_a_single_evaluation_is_measured_again_first(
    seed: int, recheck: int, asynchronous: bool, algorithm: str, generations: int
) -> None:
    before, searched = luck(seed, 0, asynchronous, algorithm, generations)
    tournament, seen = luck(seed, recheck, asynchronous, algorithm, generations)
    assert seen[: len(searched)] == searched, "the search itself is the same"
    again = seen[len(searched):]
    assert [(c.origin, c.candidate_id) for c in again] == [("elite", f"g{searched[-1].generation + 1 + i}-c0") for i in range(len(again))]
    assert tournament.finished
    assert tournament.ended_because == before.ended_because
    best = tournament.best()
    assert best is not None
    assert best.n_evaluations > 1 or len(again) == recheck
    assert len(again) <= recheck
    assert bool(again) == (before.best().n_evaluations == 1)  # type: ignore[union-attr]
    if again:
        assert again[0].params == before.best().params  # type: ignore[union-attr]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(0, 25), st.randoms(use_true_random=False))
def test_a_replay_restores_an_asynchronous_search(seed: int, side_by_side: int, stop: int, order: random.Random) -> None:
    """Whatever ran side by side."""
    specs = DEFAULT | {"seqs": ParameterSpec(target="vllm.max_num_seqs", values=[8, 16, 32, 64])}

    def fresh() -> Tournament:
        return Tournament(space(specs), SearchSettings(generations=6, asynchronous=True, seed=seed), order_key=lambda params: ((params["util"],),))

    def go_on(tournament: Tournament, live: list[Candidate], results: int, luck: random.Random) -> list[tuple[Candidate, Result]]:
        for _ in range(results):
            while len(live) < side_by_side and (asked := tournament.ask()) is not None:
                live.append(asked)
            if not live:
                break
            ended = live.pop(luck.randrange(len(live)))
            tournament.tell(ended.candidate_id, Result("ok", fitness(ended.params), n_windows=1))
        return tournament.history

    killed, live = fresh(), list[Candidate]()
    history = go_on(killed, live, stop, order)
    given_results = {c.candidate_id: (c.params, result) for c, result in history}
    resumed = fresh()
    pending = replay(resumed, given_results, {c.candidate_id: c.asked_after for c in [*(c for c, _ in history), *live]})
    assert pending == live
    later = order.getrandbits(32)
    assert go_on(resumed, pending, 30, random.Random(later)) == go_on(killed, live, 30, random.Random(later))


@pytest.mark.parametrize("stop", range(14, 17))
def test_a_replay_restores_what_was_measured_again(stop: int) -> None:
    tournament, seen = next(found for seed in range(100) if len((found := luck(seed, 2, False, "classic"))[1]) == 16)
    results = {c.candidate_id: (c.params, result) for c, result in tournament.history[:stop]}
    resumed = Tournament(space(), tournament.settings)
    assert replay(resumed, results) == []
    assert [c.candidate_id for c in run(resumed, lambda _: Result("ok", 0.0, n_windows=1))][: len(seen) - stop] == [c.candidate_id for c in seen[stop:]]
    saved = Tournament(space(), tournament.settings)
    saved.load_state_dict(json.loads(json.dumps(tournament.state_dict())))
    assert saved.finished
    assert saved.total_evaluations == 16


def test_the_only_configuration_needs_no_second_evaluation() -> None:
    one = space({"util": ParameterSpec(target="vllm.gpu_memory_utilization", values=[0.4])})
    assert len(run(Tournament(one, SearchSettings(recheck=2)), lambda _: 1.0)) == 1
