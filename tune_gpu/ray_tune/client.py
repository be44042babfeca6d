"""`ray://`: Tune runs on the cluster then, searcher and all, and its results come back through a queue as they arrive."""

# ruff: noqa: ARG002 - Tune names the arguments of its hooks

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.util.queue import Queue

from tune_gpu.artifacts.records.evaluation import FailedAttempt
from tune_gpu.ray_tune.callbacks import PendingWatchdog
from tune_gpu.ray_tune.compat import calling_controller
from tune_gpu.ray_tune.scheduler import unwrapped
from tune_gpu.ray_tune.session import waiting_said
from tune_gpu.search.tournament import Candidate

Ended = Callable[[Candidate, str | None, list[FailedAttempt]], None]


class Courier(tune.Callback):
    """Sends home what the driver would have heard itself."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._patience = queue, PendingWatchdog()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._patience.ended(trials):
            self._queue.put(("waits", waiting_said(), None, []))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._queue.put(("began", trial.config["candidate"], None, []))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._queue.put(("ended", trial.config["candidate"], trial.last_result["line_json"], []))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._queue.put(("ended", trial.config["candidate"], None, trial.config.get("retries", [])))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        # Tune copies its callbacks on their way to the cluster: only who calls has the search that has heard it all.
        if (controller := calling_controller()) is not None:
            self._queue.put(("search", unwrapped(controller.search_alg).tournament.state_dict(), None, []))


@contextlib.contextmanager
def courier(
    began: Callable[[Candidate], None], ended: Ended, note: Callable[[str], None], brought: Callable[[dict[str, Any]], None]
) -> Iterator[Courier]:
    """A callback for the Tuner; what it sends is handed on from a thread of this process, all of it before the block is left.

    Args:
        began: a candidate's trial has started.
        ended: a candidate, its line as JSON (null if its process was lost), and the causes of its retries.
        note: all of them wait for their place or their start.
        brought: the state of the search's tournament, once the experiment has ended.
    """
    queue = Queue(actor_options={"num_cpus": 0})
    failed: list[BaseException] = []

    def listen() -> None:
        while (message := queue.get()) is not None:
            kind, told, line, causes = message
            try:
                if kind == "search":
                    brought(told)
                elif kind == "waits":
                    note(told)
                elif kind == "began":
                    began(Candidate(**told))
                else:
                    ended(Candidate(**told), line, [FailedAttempt.parse(each, "retries") for each in causes])
            except BaseException as error:  # a full disk, say: told to who waits
                failed.append(error)

    thread = threading.Thread(target=listen, name="tune-gpu-courier", daemon=True)
    thread.start()
    try:
        yield Courier(queue)
    finally:
        queue.put(None)
        thread.join()
        queue.shutdown()
    if failed:
        raise failed[0]

