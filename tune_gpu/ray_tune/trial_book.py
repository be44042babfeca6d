"""The state of each trial of a search, and the candidates that wait for another trial. This module is independent of Ray and of the
tournament."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tune_gpu.search.evaluations import Candidate

Report = dict[str, Any]


class TrialState(StrEnum):
    """State of a trial that was given a candidate."""

    IN_FLIGHT = "in flight"
    """It is running. Its latest report is kept, because that is its result if a scheduler ends it while it is paused."""
    COMPLETED = "completed"
    """The search has its result."""
    ERRORED = "errored"
    """It ended without a result, which the search has recorded. Tune may run it once more; its result then replaces the failure."""
    REQUEUED = "requeued"
    """It was abandoned. Its candidate waits for another trial, or has one."""


@dataclass
class _Entry:
    candidate: Candidate | None
    """None if the trial had ended before the search was restored."""
    report: Report | None = None


class TrialBook:
    """Trials by their state and id. Each trial has one state, or none before it begins. The transitions are `complete`, `err`, `requeue`
    and `withdraw`.

    A transition raises ValueError if the state of the trial does not allow it.
    """

    def __init__(self) -> None:
        self._trials: dict[TrialState, dict[str, _Entry]] = {state: {} for state in TrialState}
        self._queue: list[Candidate] = []

    def state_of(self, trial_id: str) -> TrialState | None:
        """Return the state of a trial, or None if it was never given a candidate."""
        return next((state for state, trials in self._trials.items() if trial_id in trials), None)

    @property
    def in_flight(self) -> list[str]:
        """Return the ids of the running trials, in the order in which they began."""
        return list(self._trials[TrialState.IN_FLIGHT])

    @property
    def n_in_flight(self) -> int:
        """Return the number of running trials."""
        return len(self._trials[TrialState.IN_FLIGHT])

    @property
    def errored(self) -> dict[str, Candidate]:
        """Return the candidates of the errored trials by trial id, in the order in which they errored."""
        return {trial_id: entry.candidate for trial_id, entry in self._trials[TrialState.ERRORED].items() if entry.candidate}

    @property
    def requeued(self) -> list[Candidate]:
        """Return the candidates that wait for another trial, the next one first."""
        return list(self._queue)

    @property
    def empty(self) -> bool:
        """Return whether no trial has begun and no candidate waits."""
        return not self._queue and not any(self._trials.values())

    def candidate_of(self, trial_id: str) -> Candidate | None:
        """Return the candidate of a running trial, or None for any other trial."""
        entry = self._trials[TrialState.IN_FLIGHT].get(trial_id)
        return entry.candidate if entry else None

    def report_of(self, trial_id: str) -> Report | None:
        """Return the latest report of a running trial, or None."""
        entry = self._trials[TrialState.IN_FLIGHT].get(trial_id)
        return entry.report if entry else None

    def begin(self, trial_id: str, candidate: Candidate) -> None:
        """Record that a new trial measures this candidate."""
        self._trials[TrialState.IN_FLIGHT][trial_id] = _Entry(candidate)

    def report(self, trial_id: str, report: Report) -> None:
        """Keep the latest report of a running trial. Ignore reports of other trials."""
        if entry := self._trials[TrialState.IN_FLIGHT].get(trial_id):
            entry.report = report

    def complete(self, trial_id: str) -> None:
        """Record that the search has the result of this trial."""
        self._move(trial_id, TrialState.COMPLETED, TrialState.IN_FLIGHT, TrialState.ERRORED)

    def err(self, trial_id: str) -> None:
        """Record that this trial ended without a result."""
        self._move(trial_id, TrialState.ERRORED, TrialState.IN_FLIGHT)

    def requeue(self, trial_id: str) -> None:
        """Abandon this trial. Its candidate is queued after those that wait already."""
        self._queue.append(self._move(trial_id, TrialState.REQUEUED, TrialState.IN_FLIGHT))

    def withdraw(self, trial_ids: Iterable[str]) -> None:
        """Abandon these trials. Their candidates are queued, in this order, before those that wait already."""
        self._queue = [*[self._move(trial_id, TrialState.REQUEUED, TrialState.IN_FLIGHT) for trial_id in trial_ids], *self._queue]

    def _move(self, trial_id: str, to: TrialState, *may_be: TrialState) -> Candidate:
        state = self.state_of(trial_id)
        if state not in may_be:
            raise ValueError(f"trial {trial_id} is {state or 'unknown'} and cannot become {to}")
        candidate = self._trials[state].pop(trial_id).candidate
        assert candidate is not None, "only trials that have ended have no candidate"
        self._trials[to][trial_id] = _Entry(candidate)
        return candidate

    def enqueue(self, candidates: Iterable[Candidate]) -> None:
        """Queue candidates without a trial, after those that wait already."""
        self._queue += candidates

    def put_back(self, candidate: Candidate) -> None:
        """Make a candidate that was just dequeued or proposed the next one."""
        self._queue.insert(0, candidate)

    def next_requeued(self) -> Candidate | None:
        """Dequeue the next waiting candidate. Return None if there is none."""
        return self._queue.pop(0) if self._queue else None

    def state_dict(self) -> dict[str, Any]:
        """Return the book as JSON values. Candidates are named by their ids; reports are left out, because Tune delivers them again."""
        return {
            "live": self._ids(TrialState.IN_FLIGHT),
            "given_back": [candidate.candidate_id for candidate in self._queue],
            "suggested": sorted(trial_id for trials in self._trials.values() for trial_id in trials),
            "errored": self._ids(TrialState.ERRORED),
        }

    def _ids(self, state: TrialState) -> dict[str, str]:
        return {trial_id: entry.candidate.candidate_id for trial_id, entry in self._trials[state].items() if entry.candidate}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], candidate_of: Callable[[str], Candidate]) -> TrialBook:
        """Restore a saved book. Raise KeyError for a candidate that `candidate_of` does not know."""
        book = cls()
        for saved, trials in ((state["live"], TrialState.IN_FLIGHT), (state.get("errored", {}), TrialState.ERRORED)):
            book._trials[trials] = {trial_id: _Entry(candidate_of(candidate_id)) for trial_id, candidate_id in saved.items()}
        ended = [trial_id for trial_id in state.get("suggested", ()) if book.state_of(trial_id) is None]
        book._trials[TrialState.COMPLETED] = {trial_id: _Entry(None) for trial_id in ended}
        book.enqueue(map(candidate_of, state["given_back"]))
        return book
