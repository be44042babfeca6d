"""R-Zero as a Ray Tune scheduler (see `rzero.py`): it stops losing trials between windows."""

# ruff: noqa: ARG002 - Ray names the arguments of its hooks

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import bounds_of
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.searcher import RZeroSearch
from tune_gpu.search.collected import Collected
from tune_gpu.search.evidence import Evidence
from tune_gpu.search.pareto import matrix
from tune_gpu.search.racing import has_lost
from tune_gpu.search.tournament import Candidate, Result

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


_FEWEST_WINDOWS = 2
"""Fewest windows before a trial may be stopped, because one window gives no estimate of the error."""


class _Racer(NamedTuple):
    """A trial in a race, with its results so far."""

    candidate: Candidate
    result: Result

    @property
    def judged(self) -> bool:
        """Return whether the trial's error is known, which needs a report over at least two windows."""
        return self.result.stderr is not None and self.result.n_windows >= _FEWEST_WINDOWS


class RZeroScheduler(FIFOScheduler):
    """Stops losing trials between windows.

    After each report a trial is compared with the others of its generation, running or ended, and with the best of earlier generations. It
    is stopped once enough others are shown to be better that it cannot survive (see `search/racing.py`). A close trial runs to its last
    window. A trial must report `stderr` and `n_windows` beside the metric. The last report of a stopped trial is its result. The baseline
    is never stopped, because everything is compared with it in the end. In Pareto mode a rival counts as better only if it is not worse in
    any objective so far, because a trial that leads in one may be on the front, whatever its fitness.

    Args:
        search: the searcher of the racing trials.
        min_windows: windows before a trial may be stopped.
        alpha: the probability that one comparison stops a candidate that is not worse.
        window_budget: once the whole search has reported this many windows, no trial gets more than `min_windows`.

    Raises:
        UserError: the searcher is not an RZeroSearch (wrapped or not), `min_windows` is below 2, `alpha` is outside (0, 0.5), or the budget
            is below 1.
    """

    def __init__(self, search: RZeroSearch, *, min_windows: int = 2, alpha: float = 0.05, window_budget: int | None = None) -> None:
        super().__init__()
        search = unwrapped(search)
        if not isinstance(search, RZeroSearch):
            raise UserError(f"search={type(search).__name__}: RZeroScheduler works only with RZeroSearch. Use another scheduler of Tune.")
        for name, value in (("min_windows", min_windows), ("alpha", alpha), ("window_budget", 1 if window_budget is None else window_budget)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise UserError(f"{name}={value!r}: not a number. Give a number.")
        if min_windows < 2:
            raise UserError(f"min_windows={min_windows}: too small, because one window gives no estimate of the error. Give at least 2.")
        if not 0.0 < alpha < 0.5:
            raise UserError(f"alpha={alpha}: out of range. Give a number above 0 and below 0.5.")
        if window_budget is not None:
            bounds_of(SearchSettings, "window_budget").check("window_budget", window_budget)
        self._search, self._min_windows, self._alpha, self._budget = search, min_windows, alpha, window_budget
        self._racing: dict[str, _Racer] = {}
        self.stopped: list[str] = []
        """Ids of the candidates that lost their race."""

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Do nothing, because the searcher has the metric."""
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Raise UserError if Tune uses another searcher than this scheduler, because no trial would ever race."""
        if (found := unwrapped(tune_controller.search_alg)) is not self._search:
            raise UserError(f"RZeroScheduler: Tune uses another {type(found).__name__}. Give TuneConfig(search_alg=...) the RZeroSearch of this scheduler.")
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Return the decision after another window of a trial: continue or stop."""
        candidate, outcome = self._search.candidate_of(trial.trial_id), self._search.read(result)
        if candidate is None or outcome.fitness is None:
            return TrialScheduler.CONTINUE
        racer = self._racing[trial.trial_id] = _Racer(candidate, outcome)
        if result.get("done") or outcome.n_windows < self._min_windows or candidate.origin == "baseline":
            return TrialScheduler.CONTINUE
        spent = self._budget is not None and self._reported() >= self._budget
        if not spent and not self._has_lost(racer):
            return TrialScheduler.CONTINUE
        self.stopped.append(candidate.candidate_id)
        return TrialScheduler.STOP

    def _reported(self) -> int:
        """Return the number of windows so far, including earlier experiments. It is computed from the search, because Tune does not save a
        scheduler's state."""
        ended = [result.n_windows for _, result in self._search.tournament.history if result.fitness is not None]
        return sum(ended) + sum(racer.result.n_windows for racer in self._racing.values())

    def _has_lost(self, racer: _Racer) -> bool:
        if not racer.judged:
            return False
        settings, key = self._search.tournament.settings, self._search.tournament.space.key
        ended = [_Racer(candidate, result) for candidate, result in self._search.tournament.history if result.fitness is not None]
        known = [other for other in (*ended, *self._racing.values()) if other.judged]
        evidence = self._evidence(known)
        rivals = self._rivals(racer.candidate, known, evidence)
        names = list(settings.objectives)
        values = matrix([[each.result.objectives[name] for name in names] for each in (racer, *rivals)], list(settings.objectives.values()))
        no_worse = (values[1:] >= values[0]).all(axis=1)
        above = {key(rival.candidate.params) for rival, counts in zip(rivals, no_worse, strict=True) if counts}
        # The level is divided by the number of all rivals, also of those that do not count.
        level = self._alpha * len(above) / max(1, len(rivals))
        return bool(above) and has_lost(evidence, key(racer.candidate.params), above, settings.survivors, level)

    def _evidence(self, known: Sequence[_Racer]) -> Evidence:
        collected = Collected()
        for racer in known:
            if racer.result.fitness is not None:
                collected.observe(
                    self._search.tournament.space.key(racer.candidate.params), racer.result.fitness, racer.result.stderr, racer.result.n_windows
                )
        return collected.evidence

    def _rivals(self, candidate: Candidate, known: Sequence[_Racer], evidence: Evidence) -> list[_Racer]:
        """Return one racer for each other configuration of the generation, and for the best of earlier generations."""
        key = self._search.tournament.space.key
        found = {key(racer.candidate.params): racer for racer in known if racer.candidate.generation == candidate.generation}
        before = {key(racer.candidate.params): racer for racer in known if racer.candidate.generation < candidate.generation}
        best = next((at for at in evidence.ranked() if at in before), None)
        if best is not None:
            found.setdefault(best, before[best])
        found.pop(key(candidate.params), None)
        return list(found.values())

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Remove the trial from the race. The tournament has its result."""
        self._racing.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Remove the trial from the race."""
        self._racing.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """Remove the trial from the race."""
        self._racing.pop(trial.trial_id, None)


def unwrapped(search: Any) -> Any:
    """Return the searcher inside wrappers such as `ConcurrencyLimiter` or `Repeater`."""
    while not isinstance(search, RZeroSearch) and hasattr(search, "searcher"):
        search = search.searcher
    return search
