"""The proposals of a tournament, generation by generation, and their results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from tune_gpu.search.evaluations import Candidate, Result
from tune_gpu.search.space import Params, SearchSpace


class History:
    """Candidates by generation, the queue of candidates that are not handed out yet, and results in the order of their arrival."""

    def __init__(self) -> None:
        self.candidates: dict[str, Candidate] = {}
        self.results: dict[str, Result] = {}
        self.generations: list[list[str]] = []
        self.survivors: list[list[str]] = []
        """For each finished generation, the ids of its survivors, best first."""
        self.n_results = 0
        """Number of results so far, including replaced ones."""
        self._queue: list[str] = []
        self._transient: list[tuple[int, str, Result]] = []
        """Transient failures, each with the number of results before it. A replaced one still counts when the search is replayed."""

    @property
    def waiting(self) -> bool:
        """Return whether a candidate has no result yet."""
        return len(self.results) < len(self.candidates)

    @property
    def queued(self) -> int:
        """Return the number of candidates in the queue."""
        return len(self._queue)

    def propose(self, number: int, origin: str, params: dict[str, Any]) -> Candidate:
        """Append a candidate to this generation, which must be the last or the next one, and add it to the queue."""
        if number == len(self.generations):
            self.generations.append([])
        members = self.generations[number]
        candidate = Candidate(f"g{number}-c{len(members)}", number, origin, params, self.n_results)
        self.candidates[candidate.candidate_id] = candidate
        members.append(candidate.candidate_id)
        self._queue.append(candidate.candidate_id)
        return candidate

    def hand_out(self) -> Candidate | None:
        """Remove and return the first candidate of the queue, or None if it is empty."""
        return self.candidates[self._queue.pop(0)] if self._queue else None

    def check(self, candidate_id: str, result: Result) -> None:
        """Check that a result is possible.

        Raises:
            KeyError: the candidate was not handed out.
            ValueError: the candidate has a result already, and either that was final or the new one is not.
        """
        if candidate_id not in self.candidates or candidate_id in self._queue:
            raise KeyError(f"{candidate_id} was never proposed")
        earlier = self.results.get(candidate_id)
        if earlier is not None and (not earlier.transient or result.transient):
            raise ValueError(f"{candidate_id} has a result already")

    def record(self, candidate_id: str, result: Result) -> bool:
        """Record a result. Return whether it replaces a transient failure."""
        replaces = self.results.pop(candidate_id, None) is not None
        if result.transient:
            self._transient.append((self.n_results, candidate_id, result))
        self.n_results += 1
        self.results[candidate_id] = result
        return replaces

    def reopen(self) -> None:
        """Remove the survivors of the last generation, because it continues."""
        del self.survivors[len(self.generations) - 1:]

    def last_params(self) -> Params | None:
        """Return the parameters of the last candidate of the last generation, or None before the first."""
        return self.candidates[self.generations[-1][-1]].params if self.generations else None

    def state(self, space: SearchSpace) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "candidates": [asdict(replace(c, params=space.saved(c.params))) for c in self.candidates.values()],
            "results": {i: asdict(r) for i, r in self.results.items()},
            "generations": self.generations,
            "queue": self._queue,
            "survivors": self.survivors,
            "transient": [[before, i, asdict(r)] for before, i, r in self._transient],
        }

    def load(self, state: dict[str, Any], space: SearchSpace) -> Iterable[tuple[str, Result]]:
        """Restore `state`. Return the results, including replaced ones, in the order of their arrival."""
        self.candidates = {c["candidate_id"]: Candidate(**c | {"params": space.loaded(c["params"])}) for c in state["candidates"]}
        self.results = {i: Result(**r) for i, r in state["results"].items()}
        self.generations = [list(ids) for ids in state["generations"]]
        self._queue, self.survivors = list(state["queue"]), [list(ids) for ids in state["survivors"]]
        self._transient = [(before, i, Result(**r)) for before, i, r in state.get("transient", ())]
        in_order = [(i, result) for i, result in self.results.items() if not result.transient or "transient" not in state]
        for before, candidate_id, result in self._transient:
            in_order.insert(before, (candidate_id, result))
        self.n_results = len(in_order)
        return in_order
