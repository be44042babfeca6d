"""Pareto mode: survivors by fronts and crowding, and a front to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.runs import MISLEADING, OFF_ITS_FRONT
from tune_gpu.artifacts.reading import read_run
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_run_config
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Candidate, Result, Tournament

OBJECTIVES = {"latency_ms": "min", "capacity": "max"}
SPECS = {"share": ParameterSpec(target="", values=list(range(8))), "size": ParameterSpec(target="", values=["tiny", "base", "small"])}


def tournament_of(seed: int = 0, **changes: Any) -> Tournament:
    options: dict[str, Any] = {"algorithm": "classic", "seed": seed, "objectives": OBJECTIVES} | changes
    return Tournament(SearchSpace.from_specs(SPECS), SearchSettings(**options))


def measured(params: Any) -> Result:
    """A larger share: more capacity and more latency; the size moves both, and `small` is never good for anything."""
    size = ["tiny", "base", "small"].index(params["size"])
    latency, capacity = 100.0 + 20.0 * params["share"] + 5.0 * size, params["share"] + (1.0 if size == 1 else 0.0) - 4.0 * (size == 2)
    return Result("ok", capacity - 0.01 * latency, n_windows=1, objectives={"latency_ms": latency, "capacity": capacity})


def run(tournament: Tournament) -> list[Candidate]:
    seen = []
    while (candidate := tournament.ask()) is not None:
        seen.append(candidate)
        tournament.tell(candidate.candidate_id, measured(candidate.params))
    return seen


@given(st.integers(0, 1000), st.sampled_from(["classic", "rzero"]))
@settings(max_examples=6, deadline=None)
def test_front_is_unbeaten_and_beats_everybody_outside(seed: int, algorithm: str) -> None:
    tournament = tournament_of(seed, algorithm=algorithm)
    seen = run(tournament)
    front = tournament.front()

    def beats(a: dict[str, float], b: dict[str, float]) -> bool:
        return a != b and a["latency_ms"] <= b["latency_ms"] and a["capacity"] >= b["capacity"]

    on = [standing.objectives for standing in front]
    assert on
    for candidate in seen:
        mine = measured(candidate.params).objectives
        assert not any(beats(mine, other) for other in on)
        assert mine in on or any(beats(other, mine) for other in on)
    best = tournament.best()
    assert best is not None
    assert best.fitness == pytest.approx(max(measured(candidate.params).fitness or 0.0 for candidate in seen))


def test_survivors_are_those_that_nobody_in_the_tournament_beats() -> None:
    tournament = tournament_of(initial=4, survivors=2)
    values = [(100.0, 1.0), (300.0, 9.0), (310.0, 8.0), (320.0, 7.0)]
    for latency, capacity in values:
        candidate = tournament.ask()
        assert candidate is not None
        # the scalar fitness says the opposite
        tournament.tell(candidate.candidate_id, Result("ok", latency, n_windows=1, objectives={"latency_ms": latency, "capacity": capacity}))
    assert set(tournament.survivors[0]) == {"g0-c0", "g0-c1"}


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_the_winner_is_on_the_front_where_the_fitness_prefers_another(algorithm: str) -> None:
    tournament = tournament_of(initial=4, algorithm=algorithm)
    for latency, capacity in [(100.0, 1.0), (300.0, 9.0), (310.0, 8.0), (320.0, 7.0)]:
        candidate = tournament.ask()
        assert candidate is not None
        tournament.tell(candidate.candidate_id, Result("ok", latency, n_windows=1, objectives={"latency_ms": latency, "capacity": capacity}))
    best = tournament.best()
    assert best is not None
    assert best.objectives == {"latency_ms": 300.0, "capacity": 9.0}, "the fittest of the front; the fittest of all is beaten in both"


def test_a_recorded_run_whose_winner_was_off_its_front_names_another() -> None:
    """Both members of its front were better than its winner in both objectives."""
    record = read_run(MISLEADING, OFF_ITS_FRONT)
    config = load_run_config(record.folder.path, [], trust=True)
    tournament = Tournament(SearchSpace.from_specs(config.parameters), config.search)
    for line in record.lines:
        tournament.add_evaluated(line.params, line.counted(config.search.objectives).result(config.search.objectives))
    best, summary = tournament.best(), record.summary
    assert best is not None
    assert best.params in [standing.params for standing in tournament.front()]
    assert summary is not None
    assert summary.best is not None
    assert summary.best.params not in [standing.params for standing in tournament.front()]


@pytest.mark.parametrize("fitness_of", [lambda latency, _memory: -latency, lambda _latency, _memory: 1.0], ids=["one objective", "constant"])
def test_guided_search_goes_for_the_whole_front(fitness_of: Callable[[float, float], float]) -> None:
    """Not only for the fitness."""
    def found(seed: int) -> int:
        space = SearchSpace.from_specs({name: ParameterSpec(target="", values=list(range(11))) for name in "abcd"})
        wanted = {"latency_ms": "min", "memory_mib": "min"}
        tournament = Tournament(space, SearchSettings(seed=seed, generations=16, objectives=wanted))
        while (candidate := tournament.ask()) is not None:
            one, waste = candidate.params["a"] / 10, 1.0 + 0.3 * sum(candidate.params[name] for name in "bcd")
            other = waste * (1.0 - (one / waste) ** 0.5)
            objectives = {"latency_ms": one, "memory_mib": other}
            tournament.tell(candidate.candidate_id, Result("ok", fitness_of(one, other), n_windows=1, objectives=objectives))
        return sum(standing.params["b"] == standing.params["c"] == standing.params["d"] == 0 for standing in tournament.front())

    assert sum(found(seed) for seed in range(2)) >= 9, "of the 11 on the front of either"


def test_failures_survive_only_where_nothing_feasible_is_left() -> None:
    tournament = tournament_of(initial=3, survivors=2)
    results = [Result("failed", violation=2.0), Result("ok", 1.0, objectives={"latency_ms": 1.0, "capacity": 1.0}), Result("failed", violation=1.0)]
    for result in results:
        candidate = tournament.ask()
        assert candidate is not None
        tournament.tell(candidate.candidate_id, result)
    assert tournament.survivors[0] == ["g0-c1", "g0-c2"]


def test_a_saved_search_keeps_its_objectives() -> None:
    tournament, later = tournament_of(), tournament_of()
    for _ in range(2):
        candidate = tournament.ask()
        assert candidate is not None
        tournament.tell(candidate.candidate_id, measured(candidate.params))
    later.load_state_dict(json.loads(json.dumps(tournament.state_dict())))
    assert [s.objectives for s in later.front()] == [s.objectives for s in tournament.front()]
    assert run(later) == run(tournament)


def test_without_objectives_there_is_no_front() -> None:
    tournament = tournament_of(objectives={})
    run(tournament)
    assert tournament.front() == []


def test_bad_objectives_are_refused() -> None:
    with pytest.raises(UserError, match=r"search\.objectives\.capacity=up"):
        tournament_of(objectives={"capacity": "up"})
    tournament = tournament_of()
    candidate = tournament.ask()
    assert candidate is not None
    with pytest.raises(ValueError, match="has no capacity"):
        tournament.tell(candidate.candidate_id, Result("ok", 1.0, objectives={"latency_ms": 3.0}))
    with pytest.raises(ValueError, match="objective capacity=nan"):
        Result("ok", 1.0, objectives={"capacity": float("nan")})
