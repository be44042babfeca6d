"""R-Zero as Ray Tune's scheduler (see `rzero.py`): it stops the losers of a race between windows."""

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
"""One window has no uncertainty."""


class _Racer(NamedTuple):
    """One of a race, with what is known of it so far."""

    candidate: Candidate
    result: Result

    @property
    def judged(self) -> bool:
        """Return whether its error is known: it was reported, over two windows at least."""
        return self.result.stderr is not None and self.result.n_windows >= _FEWEST_WINDOWS


class RZeroScheduler(FIFOScheduler):
    """Stops the losers of a race between windows.

    After each report a trial is compared with the others of its generation, running or ended, and with the best of the generations
    before. It is stopped as soon as as many of them as survive are shown to be better (see `search/racing.py`); what is close goes on to
    its last window. A trial must report `stderr` and `n_windows` beside the metric, and what it has reported when it
    is stopped is its result. The baseline is never stopped: everything is compared with it in the end. In Pareto mode only those count as
    better that are so far no worse in any objective: whoever is ahead in one may be on the front, whatever its fitness.

    Args:
        search: whose candidates race.
        min_windows: nobody is stopped before.
        alpha: the probability at which a candidate that is no worse may be stopped at one look.
        window_budget: once so many windows have been reported in the whole search, nobody gets more than `min_windows`.

    Raises:
        UserError: a searcher that is no RZeroSearch (what wraps one will do), fewer than 2 windows (one has no uncertainty), an alpha outside (0, 0.5), or a budget below 1.
    """

    def __init__(self, search: RZeroSearch, *, min_windows: int = 2, alpha: float = 0.05, window_budget: int | None = None) -> None:
        super().__init__()
        search = unwrapped(search)
        if not isinstance(search, RZeroSearch):
            raise UserError(f"RZeroScheduler wants the RZeroSearch whose candidates race, not {type(search).__name__}; use another scheduler of Tune's")
        for name, value in (("min_windows", min_windows), ("alpha", alpha), ("window_budget", 1 if window_budget is None else window_budget)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise UserError(f"{name}={value!r}: allowed is a number")
        if min_windows < 2:
            raise UserError(f"min_windows={min_windows}: allowed is 2 or more, for one window has no uncertainty")
        if not 0.0 < alpha < 0.5:
            raise UserError(f"alpha={alpha}: allowed is above 0 and below 0.5")
        if window_budget is not None:
            bounds_of(SearchSettings, "window_budget").check("window_budget", window_budget)
        self._search, self._min_windows, self._alpha, self._budget = search, min_windows, alpha, window_budget
        self._racing: dict[str, _Racer] = {}
        self.stopped: list[str] = []
        """Ids of the candidates that lost their race."""

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The searcher knows the metric."""
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Raises UserError where Tune does not search with this one's RZeroSearch: nothing would ever race."""
        if (found := unwrapped(tune_controller.search_alg)) is not self._search:
            raise UserError(f"RZeroScheduler: Tune searches with another {type(found).__name__}; give TuneConfig(search_alg=...) the RZeroSearch that it was made with")
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """One more window of a trial: go on, or stop."""
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
        """Windows so far, in earlier experiments and before a restore too: Tune keeps nothing of a scheduler."""
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
        # As many comparisons as there are rivals, whoever of them counts.
        level = self._alpha * len(above) / max(1, len(rivals))
        return bool(above) and has_lost(evidence, key(racer.candidate.params), above, settings.survivors, level)

    def _evidence(self, known: Sequence[_Racer]) -> Evidence:
        collected = Collected()
        for racer in known:
            if racer.result.fitness is not None:
                collected.tell(
                    self._search.tournament.space.key(racer.candidate.params), racer.result.fitness, racer.result.stderr, racer.result.n_windows
                )
        return collected.evidence

    def _rivals(self, candidate: Candidate, known: Sequence[_Racer], evidence: Evidence) -> list[_Racer]:
        """Return one racer for each other configuration of the generation, and for the best of those before."""
        key = self._search.tournament.space.key
        found = {key(racer.candidate.params): racer for racer in known if racer.candidate.generation == candidate.generation}
        before = {key(racer.candidate.params): racer for racer in known if racer.candidate.generation < candidate.generation}
        best = next((at for at in evidence.ranked() if at in before), None)
        if best is not None:
            found.setdefault(best, before[best])
        found.pop(key(candidate.params), None)
        return list(found.values())

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """From now on the tournament knows it."""
        self._racing.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """It races no more."""
        self._racing.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """It races no more."""
        self._racing.pop(trial.trial_id, None)


def unwrapped(search: Any) -> Any:
    """Return what a `ConcurrencyLimiter` or a `Repeater`, say, stands before."""
    while not isinstance(search, RZeroSearch) and hasattr(search, "searcher"):
        search = search.searcher
    return search
