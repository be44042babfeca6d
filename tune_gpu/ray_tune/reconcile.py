"""Synchronise a searcher with Tune's trials, when Tune restores an experiment or runs an errored trial again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tune_gpu.ray_tune.compat import REPEATER_KEY, as_kept, calling_controller, flattened
from tune_gpu.ray_tune.saved_trials import KeptTrial, is_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

    from tune_gpu.ray_tune.searcher import RZeroSearch


def end_skipped(search: RZeroSearch, controller: TuneController) -> None:
    """End the trials that `Tuner.restore(resume_unfinished=False)` leaves unfinished. Their last report is their result."""
    for trial in controller.get_trials():
        if trial.is_finished() and search.candidate_of(trial.trial_id):
            search.on_trial_complete(trial.trial_id, flattened(trial.run_metadata.last_result or {}))


def errored_as(search: RZeroSearch, trial_id: str) -> str:
    """Return the id under which a trial errored. Tune resumes it under that id, but restarts it under a new id; then it is found by its
    parameters."""
    errored = search.book.errored
    if not errored or trial_id in errored or (controller := calling_controller()) is None:
        return trial_id
    trial = controller.get_trial(trial_id)
    if trial is None:
        return trial_id
    kept = as_kept(trial.evaluated_params)
    return next((other for other, candidate in errored.items() if is_of(kept, search.suggestion(candidate))), trial_id)


def follow_kept(search: RZeroSearch, kept: Sequence[KeptTrial]) -> None:
    """Follow the trials that Tune has saved. Its state may be a little older or newer than the searcher's.

    A trial that Tune runs again stays in flight. If Tune lost a trial, its candidate is suggested again. If a trial has ended, its result
    is recorded. If only Tune has a trial, it is adopted if its parameters are those of the next candidate.
    """
    known = {trial.trial_id for trial in kept}
    search.book.withdraw([trial_id for trial_id in search.book.in_flight if trial_id not in known])
    for trial in kept:
        if search.book.state_of(trial.trial_id) is None and not _adopt(search, trial):
            break
    for trial in kept:
        if trial.ended and search.candidate_of(trial.trial_id) and REPEATER_KEY not in trial.params:  # a `Repeater` reports the mean of several
            search.on_trial_complete(trial.trial_id, flattened(trial.result) if trial.result else None, error=trial.result is None)


def _adopt(search: RZeroSearch, trial: KeptTrial) -> bool:
    """If this saved trial matches the next candidate, adopt it and return True."""
    candidate = search.next_candidate()
    if candidate is None:
        return False
    if not is_of(trial.params, search.suggestion(candidate)):
        search.book.put_back(candidate)
        return False
    search.book.begin(trial.trial_id, candidate)
    return True
