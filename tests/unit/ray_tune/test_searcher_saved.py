"""A search of R-Zero that is saved and restored."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle, tune
from ray.tune.search import ConcurrencyLimiter

from tests.support.saved_searches import ENDED, begin, half_way, keep
from tests.support.searches import search_of, units
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.compat import as_kept
from tune_gpu.rzero import RZeroSearch


def test_restored_by_hand_it_suggests_again_what_was_in_flight(tmp_path: Path) -> None:
    search, later = half_way(), search_of()
    in_flight = [search.candidate_of("t2"), search.candidate_of("t3")]
    search.save(str(tmp_path / "s"))
    later.restore(str(tmp_path / "s"))
    assert later.suggest("u0") == in_flight[0].params  # type: ignore[union-attr]
    later.save(str(tmp_path / "again"))
    third = search_of()
    third.restore(str(tmp_path / "again"))
    assert {json.dumps(third.suggest(f"v{i}")) for i in range(2)} == {json.dumps(c.params) for c in in_flight if c}


def test_without_a_space_of_its_own_a_search_takes_all_from_its_checkpoint(tmp_path: Path) -> None:
    """As after `Tuner.restore` without a `param_space`: Tune has pickled the searcher before it told the space."""
    search = RZeroSearch(metric="score", mode="max", seed=3, points_to_evaluate=[{"x": 5}, {"x": 6}, {"x": 4}])
    pickled = cloudpickle.dumps(search)
    search.save(str(tmp_path / "empty"))
    search.set_search_properties(None, None, {"x": tune.randint(0, 50), "fixed": 1}, num_samples=20)
    for number in range(7):
        given = search.suggest(f"t{number}")
        assert isinstance(given, dict)
        search.on_trial_complete(f"t{number}", {"score": -given["x"]})
    search.save(str(tmp_path / "searcher"))
    expected = [search.suggest(f"n{number}") for number in range(3)]
    for later in (RZeroSearch(metric="score", mode="max"), cloudpickle.loads(pickled)):
        later.restore(str(tmp_path / "empty"))
        later.restore(str(tmp_path / "searcher"))
        assert later.set_search_properties(None, None, {"x": tune.randint(0, 50)}, num_samples=20)
        assert [later.suggest(f"n{number}") for number in range(3)] == expected


@pytest.mark.parametrize(("values", "kept"), [
    ([(1, (2, 3)), (3, 4)], True), ([{"a": (1,)}, {"b": [2]}], True), ([("__ref_ph", "17acd306"), 2], False), ([{"tuple": [1]}, 2], False), ([units, 2], False)])
def test_a_checkpoint_keeps_tuples_and_redraws_what_json_cannot_hold(values: list[Any], kept: bool, tmp_path: Path) -> None:
    search = RZeroSearch(metric="score", mode="max")
    assert search.set_search_properties(None, None, {"x": tune.choice(values)})
    given = search.suggest("t0")
    search.save(str(tmp_path / "s"))
    later = RZeroSearch(metric="score", mode="max")
    if kept:
        later.restore(str(tmp_path / "s"))
        assert later.suggest("t1") == given
    else:
        with pytest.raises(UserError, match=r"no space\. .*to Tuner\.restore again if functions or other objects"):
            later.restore(str(tmp_path / "s"))


@pytest.mark.parametrize("text", ["", "{}", '{"tournament": {"ver', "[1]", "\x80\x04"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "searcher").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="searcher: not a complete checkpoint"):
        search_of().restore(str(tmp_path / "searcher"))


def test_a_copy_that_is_restored_by_hand_waits_for_nobody(tmp_path: Path) -> None:
    search = search_of()
    given = search.suggest("t0")
    search.save(str(tmp_path / "searcher"))
    later = copy.deepcopy(search_of())
    later.restore(str(tmp_path / "searcher"))
    assert later.suggest("t1") == given


def test_restored_by_tune_it_waits_for_the_trials_that_tune_runs_again(tmp_path: Path) -> None:
    search = half_way()
    search.save(str(tmp_path / "s"))
    later = cloudpickle.loads(cloudpickle.dumps(search_of()))  # as Tuner.restore does
    later.restore(str(tmp_path / "s"))
    assert later.candidate_of("t2") == search.candidate_of("t2")
    new = [later.suggest("u0"), later.suggest("u1")]
    assert all(isinstance(given, dict) for given in new), "the other two of the generation"
    assert later.suggest("u2") is None, "the generation is awaited"
    for trial_id in ("t2", "t3", "u0", "u1"):
        later.on_trial_complete(trial_id, {"score": 3.0})
    assert isinstance(later.suggest("u3"), dict)


def test_a_trial_unknown_to_tune_is_suggested_again(tmp_path: Path) -> None:
    search = half_way()
    later = keep(tmp_path, search, *ENDED, ("t2", "RUNNING", {}, {}))
    assert later.candidate_of("t2") == search.candidate_of("t2"), "Tune runs that one again"
    assert later.candidate_of("t3") is None
    lost = search.candidate_of("t3")
    assert lost is not None
    assert later.suggest("u0") == lost.params


def test_a_trial_that_ended_after_the_checkpoint_gives_its_result(tmp_path: Path) -> None:
    """It is not awaited."""
    search = half_way()
    later = keep(tmp_path, search, *ENDED, ("t2", "TERMINATED", {}, {"score": 5.0}), ("t3", "ERROR", {}, {}))
    assert [later.candidate_of(trial_id) for trial_id in ("t2", "t3")] == [None, None]
    results = [result for _, result in later.tournament.history[2:]]
    assert [(result.fitness, result.transient) for result in results] == [(5.0, False), (None, True)], "an error says nothing of its candidate"


def test_tunes_limit_holds_when_the_limiters_state_is_older(tmp_path: Path) -> None:
    """It counts the trials that are in flight."""
    search = search_of()
    limiter = ConcurrencyLimiter(search, 2)
    begin(limiter)
    assert limiter.suggest("t4") is None, "two are in flight"
    older = limiter.get_state()
    limiter.on_trial_complete("t2", {"score": 2.0})
    assert isinstance(limiter.suggest("t4"), dict)
    kept = [*ENDED, ("t2", "TERMINATED", {}, {"score": 2.0}), ("t3", "RUNNING", {}, {}), ("t4", "RUNNING", {}, {})]
    later = ConcurrencyLimiter(keep(tmp_path, search, *kept), 2)
    later.set_state(older)
    assert later.suggest("u0") is None, "Tune runs two again"
    later.on_trial_complete("t4", {"score": 4.0})
    assert isinstance(later.suggest("u0"), dict)
    assert later.suggest("u1") is None


def test_a_trial_that_began_after_the_checkpoint_is_adopted(tmp_path: Path) -> None:
    search = half_way()
    search.save(str(tmp_path / "before"))
    next_one = search.suggest("t4")
    assert isinstance(next_one, dict)
    older = search_of()
    older._tune_restores = True
    older.restore(str(tmp_path / "before"))
    later = keep(tmp_path, older, *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}), ("t4", "RUNNING", next_one, {}))
    assert later.candidate_of("t4") == search.candidate_of("t4")
    assert later.suggest("t5") == search.suggest("t5")


@pytest.mark.parametrize(
    "values", [[(1, 2), (3, 4), (5, 6)], [units, len, None], [np.arange(2), np.arange(3), np.arange(4)], [{"d": 1, "e": {}}, {"d": 2}, {}],
               [math.nan, 2.0, "a"]])
def test_a_trial_is_taken_over_whatever_its_values_are(values: list[Any], tmp_path: Path) -> None:
    """Tune keeps a tuple as a list, a function and an array as a pickle, and a dict by its items."""
    made = {"space": {"x": tune.choice(values)}}
    search = search_of(**made)
    assert isinstance(search.suggest("t0"), dict)
    search.save(str(tmp_path / "before"))
    next_one = search.suggest("t1")
    assert isinstance(next_one, dict)
    older = search_of(**made)
    older._tune_restores = True
    older.restore(str(tmp_path / "before"))
    later = keep(tmp_path, older, ("t0", "RUNNING", {}, {}), ("t1", "RUNNING", as_kept(next_one), {}), **made)
    taken = later.candidate_of("t1")
    assert taken is not None
    assert later.tournament.space.key(taken.params) == later.tournament.space.key(next_one)


def test_a_trial_that_is_not_of_this_search_is_left_alone(tmp_path: Path) -> None:
    search = half_way()
    in_turn = half_way().suggest("t4")
    later = keep(tmp_path, search, *ENDED, ("t2", "RUNNING", {}, {}), ("t3", "RUNNING", {}, {}), ("x", "RUNNING", {"x": -1}, {}))
    assert later.candidate_of("x") is None
    assert later.suggest("t4") == in_turn


def test_trials_of_tune_that_cannot_be_read_leave_the_searchers_own_state(tmp_path: Path) -> None:
    keep(tmp_path, half_way())
    (tmp_path / "experiment_state-1.json").write_text('{"trial_data": [[')
    later: RZeroSearch = cloudpickle.loads(cloudpickle.dumps(search_of()))
    later.restore_from_dir(str(tmp_path))
    assert later.candidate_of("t2") is not None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_carried_to_another_process_as_ray_does_it_goes_on_the_same(asynchronous: bool) -> None:
    """Out-of-band buffers come back as read-only memory (pickle protocol 5; Ray's object store)."""
    search = half_way(settings=SearchSettings(algorithm="rzero", asynchronous=asynchronous))
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(search, protocol=5, buffer_callback=buffers.append)
    later = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    for each in (search, later):
        each.on_trial_complete("t2", {"score": 2.0})
        each.on_trial_complete("t3", {"score": 1.0})
    assert [later.suggest(f"u{i}") for i in range(2)] == [search.suggest(f"u{i}") for i in range(2)]
    for number in range(8):  # to the end: what was proposed before it was carried is not all
        for each in (search, later):
            each.on_trial_complete(f"u{number}", {"score": float(number % 3)})
        assert later.suggest(f"u{number + 2}") == search.suggest(f"u{number + 2}")


def test_a_checkpoint_of_another_space_is_refused(tmp_path: Path) -> None:
    half_way().save(str(tmp_path / "s"))
    with pytest.raises(UserError, match="another space"):
        search_of(space={"x": [1, 2]}).restore(str(tmp_path / "s"))
