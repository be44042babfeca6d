"""Trials whose evaluation only waits, or fails as it is told: what a worker imports (the driver's side is `noop_run`)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from tests.ray.holder import HoldsCard
from trainables.spica import SpicaTrainable
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.evaluation.measurement import Measurement, Score, Status
from tune_gpu.ray_tune.service_actors import PlacementGroupDeployer
from tune_gpu.services.deployment import Deployment

ANCHOR, DRIVER = "NOOP_ANCHOR", "NOOP_DRIVER"
"""Variables: the file that says how an anchor fares, and the process that gets a Ctrl-C."""
LOG, WAIT, TOGETHER = "NOOP_LOG", "NOOP_WAIT_S", "NOOP_TOGETHER"
"""Variables: where evaluations are noted, how long one waits, and how many cards must be held before the first begins."""


class NoopEvaluator:
    """Waits as long as it is told, on the device that the trial's bundle has, and writes down where and when."""

    def __init__(self, bundle: PlacementGroupDeployer) -> None:
        options = bundle._options(bundle.resources.gpus["vllm"], 0.0)
        actor: Any = ray.remote(HoldsCard)
        self._holder = actor.options(**options).remote()
        self._node, self._visible = ray.get(self._holder.place.remote())
        self._params: Mapping[str, Any] = {}
        self._windows = 0
        held = Path(os.environ[LOG] + ".held")
        note(held, {"node": self._node})
        while len(noted(held)) < int(os.environ[TOGETHER]):  # how long actors take to start is not what is measured
            time.sleep(0.2)  # others need the processor to start

    def begin(self, deployment: Deployment) -> None:
        self._params, self._windows = deployment.params, 0

    def window(self) -> None:
        begun = time.time()
        time.sleep(float(os.environ[WAIT]))  # the evaluation itself: nothing to wait for but time
        self._windows += 1
        note(Path(os.environ[LOG]), {"x": self._params["x"], "node": self._node, "visible": self._visible, "begun": begun, "ended": time.time()})

    def so_far(self) -> Measurement:
        return Measurement(Status.OK, "simulated", score=Score(1.0 / (1.0 + self._params["x"])), n_windows=self._windows)

    finish = so_far

    def fail(self, failure: Failure) -> Measurement:
        return Measurement.failed(failure, "simulated")

    def close(self) -> None:
        ray.kill(self._holder)


class NoopTrainable(SpicaTrainable):
    """A trial on a card whose evaluation only waits."""

    def new_evaluator(self, observe: Callable[..., None]) -> Any:
        self._bundle = PlacementGroupDeployer(self._experiment, self._device, self.resources(), lambda: self.trial_name)
        return NoopEvaluator(self._bundle)


class ScriptedEvaluator:
    """Fails as the candidate's own script says, attempt after attempt: failure kinds, `die` or `bug`, and `ok`, joined by commas."""

    def begin(self, deployment: Deployment) -> None:
        params = deployment.params
        attempts = Path(os.environ[LOG]) / params["script"]
        note(attempts, {"pid": os.getpid()})
        now = params["script"].split(",")[len(noted(attempts)) - 1]
        if now == "die":
            os._exit(1)
        if now == "bug":
            raise ZeroDivisionError("ours")
        if now != "ok":
            raise ServiceError(Failure(FailureKind(now), "vllm", Phase.START, f"told to: {now}"))

    def window(self) -> None:
        """Nothing."""

    def finish(self) -> Measurement:
        return Measurement(Status.OK, "simulated", score=Score(0.5), n_windows=1)

    def fail(self, failure: Failure) -> Measurement:
        return Measurement.failed(failure, "simulated")

    def close(self) -> None:
        """Nothing."""


class ScriptedTrainable(SpicaTrainable):
    """A trial on the CPU that fails as it is told."""

    def new_evaluator(self, observe: Callable[..., None]) -> Any:
        return ScriptedEvaluator()


class AtOnceEvaluator:
    """Knows each fitness at once."""

    def begin(self, deployment: Deployment) -> None:
        self._params = deployment.params

    def window(self) -> None:
        """Nothing."""

    def finish(self) -> Measurement:
        return Measurement(Status.OK, "simulated", score=Score(1.0 / (1.0 + abs(self._params["x"] - 700))), n_windows=1)

    def fail(self, failure: Failure) -> Measurement:
        return Measurement.failed(failure, "simulated")

    def close(self) -> None:
        """Nothing."""


class AtOnceTrainable(SpicaTrainable):
    """A trial on the CPU that takes no time."""

    def new_evaluator(self, observe: Callable[..., None]) -> Any:
        return AtOnceEvaluator()


class NotedEvaluator(AtOnceEvaluator):
    """Writes down what it deploys and in which process. An anchor fares as the file of `ANCHOR` says: `ok`, `ctrl-c` (which the driver gets), or a failure kind."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def begin(self, deployment: Deployment) -> None:
        super().begin(deployment)
        note(Path(os.environ[LOG]), {"origin": self._origin, "x": deployment.params["x"], "pid": os.getpid()})
        fate = Path(os.environ[ANCHOR]).read_text() if self._origin == "anchor" else "ok"
        if fate == "ctrl-c":
            os.kill(int(os.environ[DRIVER]), signal.SIGINT)
            time.sleep(3600)  # until its actor is ended
        if fate != "ok":
            raise ServiceError(Failure(FailureKind(fate), "vllm", Phase.START, "told to"))


class NotedTrainable(SpicaTrainable):
    """A trial on the CPU that takes no time and is noted."""

    def new_evaluator(self, observe: Callable[..., None]) -> Any:
        return NotedEvaluator(self._candidate["origin"])


def note(path: Path, line: dict[str, Any]) -> None:
    """One line, whole, from many processes."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, (json.dumps(line) + "\n").encode())
    os.close(handle)


def noted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
