"""The book of a search's trials: each trial has one state, and no candidate is lost or measured twice at a time."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.ray_tune.trial_book import TrialBook, TrialState
from tune_gpu.search.evaluations import Candidate

CANDIDATES = [Candidate(f"g0-c{number}", 0, "initial", {"x": number}) for number in range(8)]
BY_ID = {candidate.candidate_id: candidate for candidate in CANDIDATES}


def book_of(count: int = 3) -> TrialBook:
    book = TrialBook()
    for number in range(count):
        book.begin(f"t{number}", CANDIDATES[number])
    return book


def in_state(state: TrialState) -> TrialBook:
    book = book_of(1)
    if state is TrialState.COMPLETED:
        book.complete("t0")
    elif state is TrialState.ERRORED:
        book.err("t0")
    elif state is TrialState.REQUEUED:
        book.requeue("t0")
    assert book.state_of("t0") is state
    return book


ALLOWED = {
    TrialState.IN_FLIGHT: {"complete": TrialState.COMPLETED, "err": TrialState.ERRORED, "requeue": TrialState.REQUEUED},
    TrialState.ERRORED: {"complete": TrialState.COMPLETED},
    TrialState.COMPLETED: {},
    TrialState.REQUEUED: {},
}


@pytest.mark.parametrize("transition", ["complete", "err", "requeue"])
@pytest.mark.parametrize("state", TrialState)
def test_a_transition_happens_or_is_refused_as_the_state_says(state: TrialState, transition: str) -> None:
    book = in_state(state)
    if after := ALLOWED[state].get(transition):
        getattr(book, transition)("t0")
        assert book.state_of("t0") is after
    else:
        with pytest.raises(ValueError, match=f"trial t0 is {state} and cannot become"):
            getattr(book, transition)("t0")
        assert book.state_of("t0") is state


def test_a_trial_that_never_began_cannot_end() -> None:
    with pytest.raises(ValueError, match="trial t9 is unknown and cannot become completed"):
        book_of().complete("t9")


def test_only_the_latest_report_of_a_running_trial_is_kept() -> None:
    book = book_of(1)
    for score in (1.0, 2.0):
        book.report("t0", {"score": score})
    book.report("t9", {"score": 3.0})
    assert book.report_of("t0") == {"score": 2.0}
    assert book.state_of("t9") is None
    book.complete("t0")
    book.report("t0", {"score": 4.0})
    assert book.report_of("t0") is None


def test_withdrawn_candidates_wait_before_others_and_requeued_ones_behind() -> None:
    book = book_of(4)
    book.enqueue([CANDIDATES[7]])
    book.requeue("t3")
    book.withdraw(["t0", "t2"])
    book.put_back(CANDIDATES[6])
    assert book.requeued == [CANDIDATES[number] for number in (6, 0, 2, 7, 3)]
    assert book.in_flight == ["t1"]
    assert [book.next_requeued() for _ in range(6)] == [*(CANDIDATES[number] for number in (6, 0, 2, 7, 3)), None]


def test_a_book_is_empty_until_a_trial_begins_or_a_candidate_waits() -> None:
    assert TrialBook().empty
    assert not in_state(TrialState.COMPLETED).empty
    waiting = TrialBook()
    waiting.enqueue(CANDIDATES[:1])
    assert not waiting.empty


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "report", "complete", "err", "requeue", "withdraw", "complete late", "restore"]), st.integers(0, 7)), max_size=60)


@given(steps=STEPS)
def test_every_candidate_is_in_one_place_in_any_order_of_events(steps: list[tuple[str, int]]) -> None:
    """In flight once, waiting once, errored, completed, or not proposed yet; a saved book is the same book."""
    book, fresh, completed = TrialBook(), list(CANDIDATES), []
    began = 0
    for step, number in steps:
        running, errored = book.in_flight, list(book.errored)
        if step == "begin":
            candidate = book.next_requeued() or (fresh.pop(0) if fresh else None)
            if candidate:
                book.begin(f"t{began}", candidate)
                began += 1
        elif step == "complete late" and errored:
            completed.append(book.errored[errored[number % len(errored)]])
            book.complete(errored[number % len(errored)])
        elif step == "restore":
            book = TrialBook.from_state_dict(json.loads(json.dumps(book.state_dict())), BY_ID.__getitem__)
        elif running:
            trial = running[number % len(running)]
            if step == "report":
                book.report(trial, {"score": number})
            elif step == "complete":
                completed.append(book.candidate_of(trial) or pytest.fail("it is in flight"))
                book.complete(trial)
            elif step == "err":
                book.err(trial)
            elif step == "requeue":
                book.requeue(trial)
            elif step == "withdraw":
                book.withdraw(running[: 1 + number])
        measured = [book.candidate_of(trial) for trial in book.in_flight]
        places = Counter(candidate.candidate_id for candidate in (*measured, *book.requeued, *book.errored.values(), *completed, *fresh) if candidate)
        assert places == Counter(BY_ID.keys())
        assert book.n_in_flight == len(book.in_flight)
        assert all((book.state_of(f"t{i}") is not None) == (i < began) for i in range(began + 1))
    saved = book.state_dict()
    assert TrialBook.from_state_dict(saved, BY_ID.__getitem__).state_dict() == saved
