"""R-Zero as Ray Tune's search algorithm: a thin shell around `tournament.py`.

    from ray import tune
    from tune_gpu.rzero import RZeroSearch

    search = RZeroSearch({"x": [1, 2, 3, 4], "mode": ["a", "b"]}, metric="score", mode="max", seed=0)
    tuner = tune.Tuner(trainable, tune_config=tune.TuneConfig(search_alg=search, num_samples=-1, max_concurrent_trials=2))

The generation's barrier is inside: `suggest` answers null while results of the generation are awaited, and `Searcher.FINISHED` when all
generations are over. Set `max_concurrent_trials`: without it Tune queues one pending trial of a custom searcher only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from tune_gpu.config import ParameterSpec, SearchSettings
from tune_gpu.space import SearchSpace
from tune_gpu.tournament import Candidate, Result, Tournament

OnResult = Callable[[Candidate, Result, Mapping[str, Any] | None], None]


class RZeroSearch(Searcher):
    """R-Zero behind Ray's searcher interface.

    Args:
        space: name -> its values in order; ignored if `tournament` is given.
        metric: the reported key that is optimised. A trial that reports NaN for it has failed; it may report `violation`, by how much.
        mode: `max` or `min`.
        seed: of everything random.
        settings: R-Zero's sizes; the defaults are the classic ones.
        tournament: a search under way instead of a new one.
        wrap: suggest `{"candidate": {candidate_id, generation, origin, params}}` instead of the flat parameters.
        on_result: called with each result before the search hears of it (a journal, say); the last argument is Tune's result.
    """

    def __init__(
        self,
        space: Mapping[str, Sequence[Any]] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        *,
        seed: int = 0,
        settings: SearchSettings | None = None,
        tournament: Tournament | None = None,
        wrap: bool = False,
        on_result: OnResult | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        if tournament is None:
            specs = {name: ParameterSpec(target="", values=list(values)) for name, values in (space or {}).items()}
            baseline = points_to_evaluate[0] if points_to_evaluate else None
            tournament = Tournament(SearchSpace.from_specs(specs), settings or SearchSettings(seed=seed), baseline=baseline)
        self.tournament = tournament
        self._wrap, self._on_result = wrap, on_result
        self._live: dict[str, Candidate] = {}
        self._given_back: list[Candidate] = []

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the searcher with its Tuner; whoever listens to results stays behind."""
        return self.__dict__ | {"_on_result": None}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:  # noqa: ARG002 - Ray names them
        """Tune's own metric and mode, where the searcher was made without; a Tune search space is refused (give `space` instead)."""
        if config:
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray answers "FINISHED" too
        """The next candidate, null while a generation is awaited, FINISHED after the last."""
        candidate = self._given_back.pop(0) if self._given_back else self.tournament.ask()
        if candidate is None:
            # Null with nothing in flight would hang Tune without a word.
            return None if self._live and self.tournament.ended_because is None else Searcher.FINISHED
        self._live[trial_id] = candidate
        if not self._wrap:
            return dict(candidate.params)
        return {
            "candidate": {
                "candidate_id": candidate.candidate_id,
                "generation": candidate.generation,
                "origin": candidate.origin,
                "params": dict(candidate.params),
            }
        }

    def give_back(self, candidates: Sequence[Candidate]) -> None:
        """Candidates that were asked for and got no result (a run that was killed): they are suggested first."""
        self._given_back += candidates

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The final result of a trial; an error without a result says nothing of the candidate."""
        candidate = self._live.pop(trial_id, None)
        if candidate is None:
            return
        outcome = Result("failed", transient=True) if error or not result else self._read(result)
        if self._on_result:
            self._on_result(candidate, outcome, result)
        self.tournament.tell(candidate.candidate_id, outcome)

    def _read(self, result: Mapping[str, Any]) -> Result:
        value = result.get(self._metric or "")
        if value is None or not math.isfinite(value):
            return Result(
                str(result.get("status") or "failed") if result.get("status") != "ok" else "infeasible",
                violation=float(result.get("violation") or 0.0),
                transient=bool(result.get("transient")),
            )
        fitness = float(value) if self._mode != "min" else -float(value)
        return Result("ok", fitness, stderr=result.get("stderr"), n_windows=int(result.get("n_windows") or 1))

    def save(self, checkpoint_path: str) -> None:
        """Tune's checkpoint of the searcher, as JSON."""
        live = [candidate.candidate_id for candidate in self._live.values()] + [c.candidate_id for c in self._given_back]
        Path(checkpoint_path).write_text(json.dumps({"tournament": self.tournament.state_dict(), "live": live}))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from Tune's checkpoint; what was in flight is suggested again."""
        state = json.loads(Path(checkpoint_path).read_text())
        self.tournament.load_state_dict(state["tournament"])
        self._live, self._given_back = {}, [self.tournament.candidate(candidate_id) for candidate_id in state["live"]]


def replay(tournament: Tournament, told: Mapping[str, tuple[Mapping[str, Any], Result]]) -> list[Candidate]:
    """Bring a fresh tournament to where a journal ends, and return the candidates that were proposed and have no result.

    Args:
        tournament: new, with the settings of the run.
        told: candidate_id -> its parameters and result.

    Raises:
        ValueError: the journal is not of this tournament (another seed, space or version).
    """
    pending: list[Candidate] = []
    while (candidate := tournament.ask()) is not None:
        if candidate.candidate_id not in told:
            pending.append(candidate)
            continue
        params, result = told[candidate.candidate_id]
        if dict(params) != candidate.params:
            raise ValueError(f"{candidate.candidate_id} was {dict(params)} in the journal and would be {candidate.params} now")
        tournament.tell(candidate.candidate_id, result)
    return pending
