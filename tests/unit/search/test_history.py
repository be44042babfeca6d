"""Candidates in generations, and their results."""

from __future__ import annotations

import json

import pytest

from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.evaluations import Result
from tune_gpu.search.history import History
from tune_gpu.search.space import SearchSpace

SPACE = SearchSpace.from_specs({"x": ParameterSpec(target="", values=[1, 2, 3])})
TRANSIENT = Result("failed", transient=True)


def history(*results: Result) -> History:
    """Return a history of two generations of one, the first of which has these results."""
    found = History()
    for number in range(2):
        found.propose(number, "initial", {"x": number + 1})
        found.hand_out()
    for result in results:
        found.check("g0-c0", result)
        found.record("g0-c0", result)
    return found


def test_candidates_are_handed_out_in_the_order_of_their_proposal() -> None:
    found = History()
    proposed = [found.propose(0, "initial", {"x": 1}), found.propose(0, "initial", {"x": 2}), found.propose(1, "fresh", {"x": 3})]
    assert [found.hand_out() for _ in range(3)] == proposed
    assert found.hand_out() is None
    assert found.generations == [["g0-c0", "g0-c1"], ["g1-c0"]]


def test_queued_candidate_takes_no_result() -> None:
    found = History()
    found.propose(0, "initial", {"x": 1})
    with pytest.raises(KeyError, match="never proposed"):
        found.check("g0-c0", Result("ok", 1.0))


@pytest.mark.parametrize("first", [Result("ok", 1.0), Result("failed")])
def test_final_result_takes_no_other(first: Result) -> None:
    with pytest.raises(ValueError, match="has a result already"):
        history(first).check("g0-c0", Result("ok", 2.0))


def test_transient_failure_takes_one_final_result_and_no_second_failure() -> None:
    found = history(TRANSIENT)
    with pytest.raises(ValueError, match="has a result already"):
        found.check("g0-c0", TRANSIENT)
    assert found.record("g0-c0", Result("ok", 2.0))
    assert found.n_results == 2


def test_loaded_history_returns_replaced_results_in_order() -> None:
    saved = json.loads(json.dumps(history(TRANSIENT, Result("ok", 2.0)).state(SPACE)))
    later = History()
    assert [(i, result.transient) for i, result in later.load(saved, SPACE)] == [("g0-c0", True), ("g0-c0", False)]
    assert later.state(SPACE) == saved
    assert later.n_results == 2
    assert later.waiting, "the second candidate has no result"
