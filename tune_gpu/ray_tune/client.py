"""Run over `ray://`: Tune and the searcher run on the cluster, and results come back through a queue as they arrive."""

# ruff: noqa: ARG002 - Tune names the arguments of its hooks

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.util.queue import Queue

from tune_gpu.artifacts.records.evaluation import FailedAttempt
from tune_gpu.ray_tune.callbacks import PendingWatchdog
from tune_gpu.ray_tune.compat import calling_controller
from tune_gpu.ray_tune.scheduler import unwrapped
from tune_gpu.ray_tune.searcher import RZeroSearch
from tune_gpu.ray_tune.session import waiting_notice
from tune_gpu.search.tournament import Candidate

OnEnded = Callable[[Candidate, str | None, list[FailedAttempt]], None]


@dataclass(frozen=True)
class _Waiting:
    """All trials are waiting for their placement or their start."""

    notice: str


@dataclass(frozen=True)
class _Began:
    """A candidate's trial has started."""

    candidate: Candidate


@dataclass(frozen=True)
class _Ended:
    """A trial ended."""

    candidate: Candidate
    line_json: str | None
    """None if the trial's process was lost."""
    attempts: list[FailedAttempt]


@dataclass(frozen=True)
class _Final:
    """The experiment ended."""

    state: dict[str, Any]
    """State of the search's tournament."""


class ResultForwarder(tune.Callback):
    """Sends to the driver the events that it would see itself if Tune ran in its process."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._watchdog = queue, PendingWatchdog()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._watchdog.ended(trials):
            self._queue.put(_Waiting(waiting_notice()))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._queue.put(_Began(_candidate_of(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._queue.put(_Ended(_candidate_of(trial), trial.last_result["line_json"], []))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        attempts = [FailedAttempt.parse(each, "retries") for each in trial.config.get("retries", [])]
        self._queue.put(_Ended(_candidate_of(trial), None, attempts))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        # Tune pickles this callback, so its own copy of the search lacks the results. Only the caller has the search with all results.
        controller = calling_controller()
        search = unwrapped(controller.search_alg) if controller is not None else None
        if isinstance(search, RZeroSearch):
            self._queue.put(_Final(search.tournament.state_dict()))


def _candidate_of(trial: Any) -> Candidate:
    return Candidate(**trial.config["candidate"])


@contextlib.contextmanager
def forward_results(
    on_began: Callable[[Candidate], None], on_ended: OnEnded, note: Callable[[str], None], on_final_state: Callable[[dict[str, Any]], None]
) -> Iterator[ResultForwarder]:
    """Yield a callback for the Tuner. A thread of this process forwards its events, and has forwarded all of them when the block ends.

    Args:
        on_began: called with a candidate whose trial has started.
        on_ended: called with a candidate, its line as JSON (None if its process was lost), and its failed attempts.
        note: called with a notice when all trials are waiting.
        on_final_state: called with the state of the search's tournament when the experiment ends; not called for trials without a search.
    """
    queue = Queue(actor_options={"num_cpus": 0})
    failed: list[BaseException] = []

    def listen() -> None:
        while (message := queue.get()) is not None:
            try:
                match message:
                    case _Final(state):
                        on_final_state(state)
                    case _Waiting(notice):
                        note(notice)
                    case _Began(candidate):
                        on_began(candidate)
                    case _Ended(candidate, line_json, attempts):
                        on_ended(candidate, line_json, attempts)
            except BaseException as error:  # for example on a full disk; raised again at the end of the block
                failed.append(error)

    thread = threading.Thread(target=listen, name="tune-gpu-results", daemon=True)
    thread.start()
    try:
        yield ResultForwarder(queue)
    finally:
        queue.put(None)
        thread.join()
        queue.shutdown()
    if failed:
        raise failed[0]
