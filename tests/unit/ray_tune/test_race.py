"""Candidates that race, and are stopped."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Repeater
from ray.tune.search.search_generator import SearchGenerator

from tests.support.searches import search_of
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.callbacks import RetryTracker
from tune_gpu.ray_tune.run_search import RunSearch
from tune_gpu.rzero import RZeroScheduler, RZeroSearch
from tune_gpu.search.tournament import Result


class Race:
    """Trials that report window by window, in the order that a test gives."""

    def __init__(self, search: RZeroSearch | None = None, **options: Any) -> None:
        self.search = search or search_of(points_to_evaluate=[{"x": 1, "mode": "a"}])
        self.scheduler = RZeroScheduler(self.search, **options)
        self.started = 0

    def start(self, count: int) -> list[Any]:
        trials = [SimpleNamespace(trial_id=f"t{self.started + i}") for i in range(count)]
        self.started += count
        assert all(isinstance(self.search.suggest(trial.trial_id), dict) for trial in trials)
        return trials

    def report(self, trial: Any, score: float, windows: int, stderr: float | None = 0.01, *, done: bool = False) -> str:
        result = {"score": score, "stderr": stderr, "n_windows": windows, "done": done}
        decision = self.scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]
        if done or decision == TrialScheduler.STOP:
            self.scheduler.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
            self.search.on_trial_complete(trial.trial_id, result)
        return decision


def raced_generation(race: Race) -> list[Any]:
    """Generation 0 ended at 0.5; the four of generation 1."""
    for trial in race.start(2):
        race.report(trial, 0.5, 6, done=True)
    return race.start(4)


def test_a_clearly_beaten_trial_is_stopped_and_keeps_its_measurements() -> None:
    race = Race()
    elite, b, c, d = raced_generation(race)
    assert race.report(elite, 0.51, 3) == TrialScheduler.CONTINUE
    assert race.report(b, 0.8, 3) == TrialScheduler.CONTINUE
    assert race.report(c, 0.1, 1) == TrialScheduler.CONTINUE, "one window proves nothing"
    loser = race.search.candidate_of(c.trial_id)
    assert race.report(c, 0.1, 2) == TrialScheduler.STOP
    assert race.report(d, 0.78, 3) == TrialScheduler.CONTINUE, "close to b"
    assert loser is not None
    assert race.scheduler.stopped == [loser.candidate_id]
    results = {candidate.candidate_id: result for candidate, result in race.search.tournament.history}
    assert results[loser.candidate_id] == Result("ok", 0.1, 0.01, 2)


def test_a_repeat_that_disagrees_makes_the_race_careful() -> None:
    """The elite was 0.5 and is 0.9 now: what differs between two deployments by so much tells 0.9 from 0.1 apart no longer."""
    race = Race()
    elite, b, c, _ = raced_generation(race)
    race.report(elite, 0.9, 3)
    race.report(b, 0.8, 3)
    assert race.report(c, 0.1, 3) == TrialScheduler.CONTINUE


def test_in_pareto_mode_a_leader_in_one_objective_is_not_stopped() -> None:
    class Told(Race):
        def report(self, trial: Any, score: float, windows: int, stderr: float | None = 0.01, *, done: bool = False, memory: float = 5.0) -> str:
            result = {"score": score, "stderr": stderr, "n_windows": windows, "done": done, "memory": memory}
            return self.scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]

    race = Told(search_of(settings=SearchSettings(algorithm="classic", initial=4, objectives={"score": "max", "memory": "min"})))
    a, b, c, d = race.start(4)
    race.report(a, 0.9, 3)
    race.report(b, 0.8, 3)
    assert race.report(c, 0.1, 3, memory=1.0) == TrialScheduler.CONTINUE, "it needs the least memory"
    assert race.report(d, 0.1, 3, memory=9.0) == TrialScheduler.STOP


def test_the_scheduler_looks_through_what_wraps_the_searcher() -> None:
    search = search_of()
    assert RZeroScheduler(ConcurrencyLimiter(search, max_concurrent=2))._search is search  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [BasicVariantGenerator, lambda: SearchGenerator(ConcurrencyLimiter(search_of(), 2))])
def test_a_scheduler_of_another_search_than_tunes_says_so(other: Any) -> None:
    """Nothing would ever race."""
    search = search_of()
    scheduler = RZeroScheduler(search)
    scheduler.on_trial_add(SimpleNamespace(search_alg=SearchGenerator(Repeater(search, 2))), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"Tune uses another (BasicVariantGenerator|RZeroSearch)\. Give TuneConfig\(search_alg"):
        scheduler.on_trial_add(SimpleNamespace(search_alg=other()), None)  # type: ignore[arg-type]


def test_close_candidates_go_on() -> None:
    race = Race()
    a, b, c, _ = raced_generation(race)
    for windows in range(1, 6):
        for trial, score in ((a, 0.9), (b, 0.88), (c, 0.86)):
            assert race.report(trial, score, windows, stderr=0.05) == TrialScheduler.CONTINUE


def test_arrays_among_the_values_race_and_are_restored(tmp_path: Path) -> None:
    """Python gives no one answer to whether two of them are equal."""

    def search_of_arrays() -> RZeroSearch:
        arrays = [np.arange(n) for n in range(2, 7)]
        return search_of(space={"x": tune.choice(arrays)}, points_to_evaluate=[{"x": np.arange(6)}], evaluated_rewards=[2.0])

    race = Race(search_of_arrays())
    for _ in range(2):
        for trial in race.start(2):
            race.report(trial, 0.5, 3)
            race.report(trial, 0.6, 6, done=True)
    race.search.save(str(tmp_path / "s"))
    later = search_of_arrays()
    later.restore(str(tmp_path / "s"))
    assert repr(later.tournament.standings()) == repr(race.search.tournament.standings())


def test_without_a_standard_error_nobody_is_stopped() -> None:
    race = Race()
    a, b, c, _ = raced_generation(race)
    decisions = [race.report(trial, score, 5, stderr=None) for trial, score in ((a, 0.9), (b, 0.8), (c, 0.1))]
    assert set(decisions) == {TrialScheduler.CONTINUE}


def test_the_baseline_is_never_stopped() -> None:
    race = Race()
    trials = race.start(2)
    at = next(i for i, trial in enumerate(trials) if (c := race.search.candidate_of(trial.trial_id)) and c.origin == "baseline")
    race.report(trials[1 - at], 0.9, 6)
    assert race.report(trials[at], 0.0, 6) == TrialScheduler.CONTINUE


def test_after_the_budget_of_windows_each_trial_gets_the_fewest() -> None:
    race = Race(window_budget=20)
    a, b, _, _ = raced_generation(race)  # 12 windows
    assert race.report(a, 0.9, 6) == TrialScheduler.CONTINUE
    assert race.report(b, 0.9, 1) == TrialScheduler.CONTINUE
    assert race.report(b, 0.9, 2) == TrialScheduler.STOP


def test_a_budget_of_windows_holds_for_the_whole_search() -> None:
    """A restored experiment, or another one of the same search, has a scheduler that knows of no window."""
    race = Race(window_budget=14)
    a, *_ = raced_generation(race)  # 12 windows
    race.scheduler = RZeroScheduler(race.search, window_budget=14)
    assert race.report(a, 0.9, 2) == TrialScheduler.STOP


def test_a_failed_window_does_not_race() -> None:
    race = Race()
    a, *_ = raced_generation(race)
    assert race.report(a, math.nan, 3) == TrialScheduler.CONTINUE


def test_in_pareto_mode_every_objective_must_be_reported() -> None:
    search = search_of(settings=SearchSettings(algorithm="classic", objectives={"latency_ms": "min", "capacity": "max"}))
    whole = {"score": 1.0, "latency_ms": 20.0, "capacity": 3}
    assert search.read(whole).objectives == {"latency_ms": 20.0, "capacity": 3.0}
    assert search.read(whole | {"capacity": math.nan}) == Result("infeasible", n_windows=1, objectives={})


def test_a_trial_without_a_result_is_suggested_again_while_allowed() -> None:
    book = RetryTracker(max_retries=1)
    tournament = search_of(space={"x": [1, 2]}, settings=SearchSettings(initial=2, generations=1)).tournament
    search = RunSearch(tournament, again=book.again)
    first, second = search.suggest("a"), search.suggest("b")
    search.on_trial_complete("a", None, error=True)
    assert search.suggest("c") == first, "even where nothing new would be proposed"
    assert search.suggest("d") is None, "results are awaited: one of them may have to be suggested again"
    search.on_trial_complete("c", None, error=True)
    assert search.suggest("e") is None
    search.on_trial_complete("b", {"fitness": 1.0})
    assert search.suggest("f") == "FINISHED"
    assert {result.status: result.transient for _, result in search.tournament.history} == {"failed": True, "ok": False}
    assert [cause.kind for cause in book.carried(search.tournament.history[0][0].candidate_id)] == ["service_lost"]
    assert second != first
