"""Resume a search from the records of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.search.tournament import Candidate, Result, Tournament


def replay(
    tournament: Tournament, results: Mapping[str, tuple[Mapping[str, Any], Result]], asked_after: Mapping[str, int] | None = None
) -> list[Candidate]:
    """Replay the results of a run in a new tournament. Return the candidates that were proposed and have no result.

    Args:
        tournament: a new tournament with the settings of the run.
        results: candidate_id -> its parameters and result, in the order of the results.
        asked_after: candidate_id -> how many results the search had when it proposed the candidate. Only asynchronous searches with several
            candidates at once need it; otherwise the results determine when a candidate was proposed. A missing candidate was proposed together
            with the next one that is not missing.

    Raises:
        ValueError: the results are not those of this tournament (another seed, space or version).
    """
    asked: dict[str, Candidate] = {}
    turns = sorted((asked_after or {}).items(), key=lambda turn: turn[1], reverse=True)

    def ask_for(candidate_id: str) -> None:
        while candidate_id not in asked:
            if (candidate := tournament.ask()) is None:
                raise ValueError(f"it has a result for {candidate_id}, which this search does not propose")
            asked[candidate.candidate_id] = candidate

    def ask_for_all(n_results: int) -> None:
        while turns and turns[-1][1] <= n_results:
            ask_for(turns.pop()[0])

    for n_results, (candidate_id, (params, result)) in enumerate(results.items()):
        ask_for_all(n_results)
        ask_for(candidate_id)
        if dict(params) != asked[candidate_id].params:
            raise ValueError(f"its {candidate_id} has the parameters {dict(params)}, but this search proposes {asked[candidate_id].params}")
        tournament.tell(candidate_id, result)
    ask_for_all(len(results))
    while tournament.queued and (candidate := tournament.ask()) is not None:
        asked[candidate.candidate_id] = candidate
    return [candidate for candidate_id, candidate in asked.items() if candidate_id not in results]
