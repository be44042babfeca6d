"""Callbacks for Tune: report started and waiting trials, and record retries."""

# ruff: noqa: ARG002 - Tune names the arguments of its hooks

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tune_gpu.artifacts.records.evaluation import FailedAttempt
from tune_gpu.evaluation.retries import LOST
from tune_gpu.ray_tune.session import PATIENCE_S, waiting_notice
from tune_gpu.search.tournament import Candidate


class PendingWatchdog:
    """Detects that trials have waited too long for their placement or start, once per wait. Tune itself prints nothing."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._noticed = False

    def ended(self, trials: Sequence[Any]) -> bool:
        """Return True once the trials have waited for `PATIENCE_S`. Call this in each step of Tune."""
        if any(trial.status == Trial.RUNNING for trial in reversed(trials)) or all(trial.is_finished() for trial in trials):
            self._since, self._noticed = None, False
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if self._noticed or now - self._since < PATIENCE_S:
            return False
        self._noticed = True
        return True


class StartReporter(tune.Callback):
    """Reports each candidate that begins, and that all trials are waiting."""

    def __init__(self, began: Callable[[Candidate], None], note: Callable[[str], None]) -> None:
        self._began: Callable[[Candidate], None] | None = began
        self._note: Callable[[str], None] | None = note
        self._patience = PendingWatchdog()

    def __getstate__(self) -> dict[str, Any]:
        return {"_began": None, "_note": None, "_patience": PendingWatchdog()}  # Tune pickles its callbacks, and a terminal cannot be pickled

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._note is not None and self._patience.ended(trials):
            self._note(waiting_notice())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._began is not None:
            self._began(Candidate(**trial.config["candidate"]))


class RetryTracker(tune.Callback):
    """Passes the causes of failed attempts to the next attempt of a trial, and keeps them for trials that end without a report.

    When a node dies, Ray may report one death twice, and ends the trial at the second report even if retries are left. Such a
    candidate gets another trial (`again`), which counts as a retry.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._causes: dict[str, list[FailedAttempt]] = {}
        self._carried: dict[str, list[FailedAttempt]] = {}

    def causes(self, candidate_id: str) -> list[FailedAttempt]:
        """Return the causes of the attempts that Ray has retried."""
        return list(self._causes.get(candidate_id, []))

    def again(self, candidate: Candidate) -> bool:
        """Return whether a candidate whose trial ended without a result gets another trial."""
        spent = self.causes(candidate.candidate_id)
        if len(spent) >= self._max_retries:
            return False
        self._carried[candidate.candidate_id] = self._causes[candidate.candidate_id] = [*spent, LOST]
        return True

    def carried(self, candidate_id: str) -> list[FailedAttempt]:
        """Return the causes from the candidate's earlier trials, which the ended trial does not have."""
        return list(self._carried.get(candidate_id, []))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # An attempt that ended itself has its cause in its last report. A process that died has sent none.
        reported = (trial.last_result or {}).get("retry_json")
        known = list(trial.config.get("retries", []))
        cause = json.loads(reported) if reported else None
        known.append(LOST.dump() if cause is None or cause["attempt"] != len(known) else cause["cause"])
        trial.set_config({**trial.config, "retries": known})  # the actor of the next attempt gets this config
        candidate_id = trial.config["candidate"]["candidate_id"]
        self._causes[candidate_id] = [*self.carried(candidate_id), *(FailedAttempt.parse(each, "retries") for each in known)]
