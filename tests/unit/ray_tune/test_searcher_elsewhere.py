"""Results from elsewhere that a search of R-Zero takes in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.search import ConcurrencyLimiter, Repeater, Searcher
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.utils.util import flatten_dict

from tests.support.saved_searches import ENDED, begin, half_way, keep
from tests.support.searches import CLASSIC, SPACE, search_of, units
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.run_search import RunSearch
from tune_gpu.rzero import RZeroSearch
from tune_gpu.search.tournament import Result

ELSEWHERE = [{"x": 2, "mode": "a"}, {"x": 5, "mode": "b"}, {"x": 6, "mode": "b"}]


def run_out(search: RZeroSearch) -> list[dict[str, Any]]:
    """All that it suggests, measured at 10 - |x - 4|."""
    given: list[dict[str, Any]] = []
    while isinstance(suggested := search.suggest(f"t{len(given)}"), dict):
        given.append(suggested)
        search.on_trial_complete(f"t{len(given) - 1}", {"score": 10.0 - abs(suggested["x"] - 4)})
    return given


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_what_was_evaluated_elsewhere_is_known_and_not_tried_again(algorithm: str) -> None:
    search = search_of(settings=SearchSettings(algorithm=algorithm, seed=0), points_to_evaluate=ELSEWHERE, evaluated_rewards=[8.0, 20.0, math.nan])
    given = run_out(search)
    assert ELSEWHERE[0] not in given, "known, and not the best"
    assert ELSEWHERE[2] not in given, "it failed"
    assert len({json.dumps(point) for point in given if point not in ELSEWHERE}) == 9, "the other nine of twelve"
    again = given.count(ELSEWHERE[1])
    known = {json.dumps(standing.params): standing.fitness for standing in search.tournament.standings()}
    assert [known[json.dumps(point)] for point in ELSEWHERE] == [8.0, pytest.approx((20.0 + 9.0 * again) / (1 + again)), None]
    assert (again > 0) == (algorithm == "classic"), "R-Zero measures the best again in each generation, the guided one only where there is noise"


def test_a_result_from_elsewhere_means_the_same_in_mode_min() -> None:
    """Also in Tune's own space."""
    search = RZeroSearch(settings=SearchSettings(seed=0), points_to_evaluate=[{"x": 1, "model": {"depth": 3}}], evaluated_rewards=[-5.0])
    search.add_evaluated_point({"x": 2, "model": {"depth": 4}, "constant": 7}, 1.0)
    search.add_evaluated_point({"x": 3, "model": {"depth": 4}, "constant": 7}, 1.0, error=True)
    assert search.set_search_properties("loss", "min", {"x": tune.choice([1, 2, 3]), "model": {"depth": tune.choice([3, 4])}, "constant": 7})
    assert isinstance(search.suggest("t0"), dict)
    best = search.tournament.best()
    assert best is not None
    assert (best.params, best.fitness) == ({"x": 1, "model/depth": 3}, 5.0)
    assert [standing.fitness for standing in search.tournament.standings()] == [5.0, -1.0, None]


def test_the_trials_of_an_earlier_experiment_are_told_by_tunes_own_call() -> None:
    trials = [Trial("made", config=point, stub=True) for point in ELSEWHERE]
    for trial, status, result in zip(trials, (Trial.TERMINATED, Trial.TERMINATED, Trial.ERROR), (3.0, 4.0, 9.0), strict=True):
        trial.status = status
        trial.run_metadata.last_result = {"score": result, "done": True}
    search = search_of()
    search.add_evaluated_trials(trials, "score")
    search.suggest("t0")
    assert [(standing.params, standing.fitness) for standing in search.tournament.standings()] == [
        (ELSEWHERE[1], 4.0), (ELSEWHERE[0], 3.0), (ELSEWHERE[2], None)]


@pytest.mark.parametrize("begun", [False, True])
def test_restored_it_still_knows_what_it_was_told(begun: bool, tmp_path: Path) -> None:
    search = search_of(settings=SearchSettings(seed=0), points_to_evaluate=ELSEWHERE, evaluated_rewards=[8.0, 7.0, 6.0])
    if begun:
        begin(search)
    search.save(str(tmp_path / "s"))
    informed, uninformed = (search_of(settings=SearchSettings(seed=0), **given) for given in (
        {"points_to_evaluate": ELSEWHERE, "evaluated_rewards": [8.0, 7.0, 6.0]}, {}))
    for later in (informed, uninformed):
        later.restore(str(tmp_path / "s"))
    proposed = [run_out(one) for one in (informed, uninformed)]
    assert proposed[0] == proposed[1]
    assert not any(point in proposed[0] for point in ELSEWHERE)
    standings = [[(s.params, s.fitness) for s in one.tournament.standings()] for one in (informed, uninformed)]
    assert standings[0] == standings[1]


def test_results_from_elsewhere_that_cannot_be_told_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="evaluated_rewards: 1 for 3 points_to_evaluate"):
        search_of(points_to_evaluate=ELSEWHERE, evaluated_rewards=[1.0])
    with pytest.raises(UserError, match=r"x=7: not allowed\. Use 1, 2, 3"):
        search_of().add_evaluated_point({"x": 7, "mode": "a"}, 1.0)
    with pytest.raises(UserError, match="mode: missing"):
        search_of().add_evaluated_point({"x": 1, "mood": "a"}, 1.0)
    with pytest.raises(UserError, match="this search has begun"):
        half_way().add_evaluated_point(ELSEWHERE[0], 1.0)
    with pytest.raises(UserError, match=r"it has one value, but search\.objectives needs wer"):
        search_of(settings=SearchSettings(objectives={"wer": "min"})).add_evaluated_point(ELSEWHERE[0], 1.0)


def test_points_of_numpys_numbers_are_kept_as_the_spaces_own(tmp_path: Path) -> None:
    space = SPACE | {"share": tune.uniform(0.0, 4.0)}
    search = search_of(space=space, points_to_evaluate=[{"x": np.int64(3), "mode": np.str_("b"), "share": np.float32(0.5)}])
    search.add_evaluated_point({"x": np.int64(2), "mode": "a", "share": np.int64(1)}, np.float64(1.0))
    assert search.suggest("t0") == {"x": 3, "mode": "b", "share": 0.5}
    search.save(str(tmp_path / "s"))
    assert json.loads((tmp_path / "s").read_text())["live"] == {"t0": "g0-c0"}


@pytest.mark.parametrize("algorithm", ["classic", "rzero"])
def test_a_limiter_in_batches_tells_the_search_only_of_whole_batches(algorithm: str) -> None:
    search = search_of(settings=SearchSettings(algorithm=algorithm, seed=0, initial=4))
    limiter = ConcurrencyLimiter(search, max_concurrent=4, batch=True)
    limiter.set_search_properties(None, None, {})
    assert all(isinstance(limiter.suggest(f"t{number}"), dict) for number in range(4))
    for number in range(4):
        assert search.tournament.history == []
        assert limiter.suggest("t4") is None
        limiter.on_trial_complete(f"t{number}", {"score": float(number)})
    assert len(search.tournament.history) == 4
    assert isinstance(limiter.suggest("t4"), dict)


def experiment_of(search: Searcher) -> SearchGenerator:
    """As each `Tuner.fit` makes one."""
    generator = SearchGenerator(search)
    generator.add_configurations(Experiment("made", lambda config: None, num_samples=20))
    return generator


@pytest.mark.parametrize("settings", [CLASSIC, None])
def test_what_an_experiment_left_in_flight_is_suggested_again_by_the_next(settings: SearchSettings | None) -> None:
    """Tune tells nothing of the trials that a time budget has stopped; a search that waited for them stood still without a word."""
    search = search_of(settings=settings)
    first = experiment_of(ConcurrencyLimiter(search, 2))
    left = [trial.evaluated_params for trial in (first.next_trial(), first.next_trial())]
    assert first.next_trial() is None
    second = experiment_of(ConcurrencyLimiter(search, 2))
    trials = [second.next_trial(), second.next_trial()]
    assert [trial.evaluated_params for trial in trials] == left
    assert second.next_trial() is None
    second.on_trial_complete(trials[0].trial_id, {"score": 1.0})
    second.on_trial_complete(trials[1].trial_id, {"score": 1.0})
    assert second.next_trial() is not None


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_repeater_tells_the_mean_of_those_that_did_not_raise(tmp_path: Path) -> None:
    search = search_of()
    repeater = Repeater(search, repeat=2)
    first = [repeater.suggest(f"t{number}") for number in range(2)]
    assert [given and given["x"] for given in first] == [first[0] and first[0]["x"]] * 2
    repeater.on_trial_complete("t0", {"score": 4.0})
    later = keep(tmp_path, search, ("t0", "TERMINATED", first[0] or {}, {"score": 4.0}), ("t1", "RUNNING", first[1] or {}, {}))
    assert later.tournament.history == [], "Tune's Repeater is restored too, and still waits for the second"
    repeater.on_trial_complete("t1", error=True)
    assert [result.fitness for _, result in search.tournament.history] == [4.0]
    for number in range(2):
        repeater.suggest(f"u{number}")
    for number in range(2):
        repeater.on_trial_complete(f"u{number}", error=True)
    assert search.tournament.history[1][1] == Result("failed", transient=True)


class Asking(TuneController):
    """What a search sees of Tune that has restored an experiment."""

    def __init__(self, search: Searcher, trials: list[Trial]) -> None:
        self._generator, self._kept = experiment_of(search), trials

    def get_trials(self) -> list[Trial]:
        return self._kept

    def get_trial(self, tid: str) -> Trial | None:
        return next((trial for trial in self._kept if trial.trial_id == tid), None)

    def ask(self) -> Trial | None:
        return self._generator.next_trial()

    def tell(self, trial_id: str, result: dict[str, Any]) -> None:
        self._generator.on_trial_complete(trial_id, result)


@pytest.mark.parametrize("whole_candidates", [False, True])
@pytest.mark.parametrize("values", [[1, 2, 3], [{"d": 1}, {"d": 2}, {}], [(1, 2), (3, 4), (5, 6)], [units, len, None]])
def test_a_raised_trials_result_counts_when_rerun_under_a_new_id(whole_candidates: bool, values: list[Any]) -> None:
    """As `restart_errored` does."""
    search = search_of(space={"net": {"x": tune.choice(values)}, "y": [1, 2]})
    if whole_candidates:
        search = RunSearch(search.tournament)
    suggested = [search.suggest(f"t{number}") for number in range(2)]
    for number in range(2):
        search.on_trial_complete(f"t{number}", error=True)
    assert search.tournament.standings() == []
    asking = Asking(search, [
        Trial("made", trial_id=f"new{i}", evaluated_params=flatten_dict(given), stub=True) for i, given in enumerate(suggested) if isinstance(given, dict)])
    for number in (1, 0):
        asking.tell(f"new{number}", {search.metric: float(number)})
    asking.tell("stranger", {search.metric: 9.0})
    first = {candidate.candidate_id: result.fitness for candidate, result in search.tournament.history}
    assert first == {"g0-c0": 0.0, "g0-c1": 1.0}


def test_restored_trials_that_do_not_run_again_are_not_awaited(tmp_path: Path) -> None:
    """`Tuner.restore(resume_unfinished=False)`: they have what they reported last."""
    later = keep(tmp_path, half_way(), *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}))
    trials = [Trial("made", trial_id=trial_id, stub=True) for trial_id in ("t2", "t3")]
    for trial in trials:
        trial.status = Trial.TERMINATED
    trials[0].run_metadata.last_result = {"score": 7.0}
    asking = Asking(ConcurrencyLimiter(later, 2), trials)
    assert asking.ask() is not None
    assert asking.ask() is not None
    assert asking.ask() is None
    assert [(result.fitness, result.transient) for _, result in later.tournament.history[2:]] == [(7.0, False), (None, True)]
