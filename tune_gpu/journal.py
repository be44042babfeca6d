"""A search that goes on from what a run has written down of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.tournament import Candidate, Result, Tournament


def replay(tournament: Tournament, told: Mapping[str, tuple[Mapping[str, Any], Result]]) -> list[Candidate]:
    """Bring a fresh tournament to where a journal ends, and return the candidates that were proposed and have no result.

    A journal restores generations that are made whole (classic R-Zero, or candidates ordered by their engine) and one-by-one
    proposals; for several at once in asynchronous mode, where the order of asking matters, only `state_dict` does.

    Args:
        tournament: new, with the settings of the run.
        told: candidate_id -> its parameters and result, in the order of the results.

    Raises:
        ValueError: the journal is not of this tournament (another seed, space or version).
    """
    pending: list[Candidate] = []
    left = dict(told)
    while (left or tournament.queued) and (candidate := tournament.ask()) is not None:
        if candidate.candidate_id not in left:
            pending.append(candidate)
            continue
        params, result = left.pop(candidate.candidate_id)
        if dict(params) != candidate.params:
            raise ValueError(f"{candidate.candidate_id} was {dict(params)} in the journal and would be {candidate.params} now")
        tournament.tell(candidate.candidate_id, result)
    if left:
        raise ValueError(f"{', '.join(left)} in the journal: this search has not proposed them")
    return pending
