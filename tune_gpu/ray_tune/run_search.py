"""The searcher of a run of this program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tune_gpu.ray_tune.searcher import RZeroSearch
from tune_gpu.search.tournament import Candidate, Result, Tournament

OnResult = Callable[[Candidate, Result, Mapping[str, Any] | None], None]


class RunSearch(RZeroSearch):
    """`RZeroSearch` that suggests whole candidates, and passes each result to the run before the search reads it.

    Args:
        tournament: the search, whose trials report `fitness`.
        on_result: called with each result. The last argument is Tune's result, or None for a trial that was lost.
        again: called with a candidate whose trial ended without any result. If it returns True, the candidate is suggested once more, as a
            new trial.
    """

    def __init__(
        self, tournament: Tournament, *, on_result: OnResult | None = None, again: Callable[[Candidate], bool] | None = None
    ) -> None:
        super().__init__(metric="fitness", mode="max", tournament=tournament)
        self._on_result, self._again = on_result, again
        self._may_requeue = again is not None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that Tune pickles with its Tuner. It leaves out the callbacks, which belong to this process."""
        return super().__getstate__() | {"_on_result": None, "_again": None, "_may_requeue": False}

    @property
    def in_flight(self) -> int:
        """Return how many candidates have a trial that has not ended."""
        return self.book.n_in_flight

    def requeue(self, candidates: Sequence[Candidate]) -> None:
        """Suggest these candidates first. They were proposed, but got no result because their run was killed."""
        self.book.enqueue(candidates)

    def has_more(self) -> bool:
        """Return whether any candidate is left to suggest. Call this only while nothing is in flight, because otherwise the search may be
        waiting for results."""
        candidate = self.next_candidate()
        if candidate is not None:
            self.book.put_back(candidate)
        return candidate is not None

    def suggestion(self, candidate: Candidate) -> dict[str, Any]:
        """Return the candidate itself, because the trial and its line need more than the parameters."""
        return {"candidate": vars(candidate) | {"params": dict(candidate.params)}}

    def _wants_another_trial(self, candidate: Candidate) -> bool:
        return self._again is not None and self._again(candidate)

    def _tell(self, candidate: Candidate, outcome: Result, result: Mapping[str, Any] | None) -> None:
        if self._on_result:
            self._on_result(candidate, outcome, result)
        super()._tell(candidate, outcome, result)
