"""Measure a comparison or a soak in a Ray actor that holds a card, so that on a cluster it is placed where cards are."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process import guard
from tune_gpu.compare.observe import make_replicate
from tune_gpu.compare.samples import Replicate
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.ray_tune.session import PATIENCE_S, waiting_notice
from tune_gpu.services.cards import most_cards
from tune_gpu.services.deployment import resolve
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.several import open_device
from tune_gpu.workload.window import WindowResult

_GONE_WITHIN_S = 30.0


class MeasurementActor:
    """Deploy arms one after another and drive them. An engine keeps running while its flags stay the same. Answers are plain data."""

    def __init__(self, experiment: dict[str, Any], device: str) -> None:
        config = config_of(experiment)
        self._config, self._device, self._evaluator = config, device, Evaluator(config, device)

    def where(self) -> tuple[str, int]:
        """Return the host name and the process id."""
        return socket.gethostname(), os.getpid()

    def device(self) -> tuple[dict[str, Any], float | None]:
        """Return its device, and the memory that others use on it (MiB, None if not reported), before anything is deployed."""
        with contextlib.closing(open_device(self._device, most_cards(self._config))) as probe:
            return probe.info.as_dict(), neighbours_on(probe).mib

    def replicate(self, arm: str, number: int, params: Mapping[str, Any], first_window: int) -> dict[str, Any]:
        """Measure one deployment with its windows. A failure is a result."""
        started = time.monotonic()
        windows: list[WindowResult] = []
        measured = self._measured(params, first_window, windows)
        return make_replicate(arm, number, windows, measured, time.monotonic() - started, catalogue_for(self._config)).as_dict()

    def _measured(self, params: Mapping[str, Any], first_window: int, windows: list[WindowResult]) -> Measurement:
        try:
            self._evaluator.begin(resolve(self._config, params, self._device), first_window=first_window, every_clip=self._config.confirm.metric == "fitness")
            for _ in range(self._config.workload.windows):
                windows.append(self._evaluator.window()[0])
            return self._evaluator.finish()
        except ServiceError as error:
            return self._evaluator.fail(error.failure)
        except Exception as error:
            failure = Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, f"{type(error).__name__}: {error}")
            return self._evaluator.fail(failure)

    def hold(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Deploy for a soak. Return the failure if it does not start, else None."""
        try:
            self._evaluator.begin(resolve(self._config, params, self._device), every_clip=False)
        except ServiceError as error:
            return dict(self._evaluator.fail(error.failure).failure.as_dict())  # type: ignore[union-attr]
        return None

    def load(self) -> dict[str, Any]:
        """Drive one window on the deployment: requests, failures, peak memory of each service and of the device (MiB), OOM events; or
        `failure`."""
        try:
            window, device = self._evaluator.window()
        except ServiceError as error:
            return {"failure": self._evaluator.fail(error.failure).failure.as_dict()}  # type: ignore[union-attr]
        errors = [turn.error for turn in window.turns] + [ask.error for ask in window.background]
        return {
            "failure": None,
            "n_requests": len(errors),
            "errors": [error for error in errors if error],
            "service_memory_mib": dict(device.peak_service_mib),
            "device_memory_mib": device.peak_used_mib,
            "oom_events": device.oom_events,
        }

    def close(self) -> None:
        """Stop everything."""
        self._evaluator.close()


class MeasurementLost(RuntimeError):
    """The actor's process ended, or Ray has no place for it."""


class MeasurementClient:
    """A client of the actor. Every call raises MeasurementLost once the actor has ended."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.device, self.neighbours_mib = self._ask("device")
        self.busy = False
        """True during a call, and after one whose answer is no longer awaited (Ctrl-C)."""

    def close(self) -> None:
        """Stop everything in order. A busy actor is left to its guards."""
        if not self.busy:
            self._ask("close")

    def replicate(self, arm: str, number: int, params: Mapping[str, Any], first_window: int) -> Replicate:
        """See `MeasurementActor.replicate`."""
        return Replicate.from_dict(self._ask("replicate", arm, number, dict(params), first_window))

    def hold(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `MeasurementActor.hold`."""
        answer: dict[str, Any] | None = self._ask("hold", dict(params))
        return answer

    def load(self) -> dict[str, Any]:
        """See `MeasurementActor.load`."""
        return dict(self._ask("load"))

    def _ask(self, method: str, *arguments: Any) -> Any:
        self.busy = True
        try:
            answer = ray.get(getattr(self._actor, method).remote(*arguments))
            self.busy = False
            return answer
        except RayError as error:
            raise MeasurementLost(_message(error)) from error


@contextlib.contextmanager
def measurement_client(config: ExperimentConfig, device: str, resources: Mapping[str, float], print_line: Callable[[str], None]) -> Iterator[MeasurementClient]:
    """Run a measuring actor on the current Ray within the block. Nothing of it is left afterwards. Raise MeasurementLost.

    Args:
        config: its workload is driven.
        device: `cuda` or `cpu`.
        resources: its request to Ray, by Ray's names (`CPU`, `GPU`).
        print_line: called once if the actor has no place after a while.
    """
    named = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    options = {"num_cpus": resources.get("CPU", 1.0), "num_gpus": resources.get("GPU", 0.0), "resources": named or None}
    actor: Any = ray.remote(MeasurementActor).options(**options).remote(asdict(config), device)
    host, pid = "", 0
    try:
        try:
            host, pid = _placed(actor.where.remote(), resources, print_line)
        except RayError as error:
            raise MeasurementLost(_message(error)) from error
        remote = MeasurementClient(actor)
        yield remote
        remote.close()
    finally:
        here = host == socket.gethostname()
        tree = _processes(guard.descendants(pid)) if here else []
        # A call that is under way cannot be interrupted; the services' guards end them when the actor has gone.
        ray.kill(actor)
        psutil.wait_procs(tree, timeout=_GONE_WITHIN_S)


def _placed(where: Any, resources: Mapping[str, float], print_line: Callable[[str], None]) -> tuple[str, int]:
    """Return the answer once Ray has placed and started the actor. Ray itself would wait silently, even if no place can exist."""
    waited = False
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0.0) >= amount for name, amount in resources.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
            raise MeasurementLost(f"no place to measure in: no node of Ray has {asked}")
        if ray.wait([where], timeout=PATIENCE_S)[0]:
            host, pid = ray.get(where)
            return host, pid
        if not waited:
            print_line(waiting_notice())
        waited = True


def _message(error: RayError) -> str:
    """Return what went wrong, in one line. Ray's text begins with where a remote exception was raised, and ends with the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"the process that measures failed: {lines[-1]}" if "ray::" in lines[0] else f"the process that measures has gone: {lines[0]}"


def _processes(pids: list[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def measured_as(config: ExperimentConfig, *, capacity: bool, windows: int | None, window_s: float | None) -> ExperimentConfig:
    """Return the configuration with the windows of a comparison.

    Sessions go as users have them, unless the settings say otherwise: a history of one's own, and the LLM gets what was transcribed. They say
    what the search has not said.
    """
    workload = replace(
        config.workload,
        windows=windows or config.workload.windows,
        window_s=window_s or config.workload.window_s,
        solo_window_s=0.0,
        capacity_step_s=config.workload.capacity_step_s if capacity else 0.0,
    )
    if workload.has_sessions:
        workload = replace(
            workload,
            history=workload.history or "own",
            llm_hears=workload.llm_hears or "transcript",
            half="comparison" if workload.half == "search" else workload.half,
        )
    return replace(config, workload=workload)
