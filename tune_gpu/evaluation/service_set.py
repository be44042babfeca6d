"""The services of a candidate: started on the trial's own card, kept while nothing of theirs changes, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.evaluation.deployers import ServiceDeployer
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.services.mps import MpsDaemon
from tune_gpu.services.mps_policy import asks_for_mps, forbidden
from tune_gpu.services.running import RunningService
from tune_gpu.services.vllm.info import EngineInfo

START_ORDER = ("whisper", "vllm")
"""Whisper's memory grows with its input, so it starts first; vLLM reserves its share of what is left."""


class ServiceSet:
    """Holds what runs of the candidate under way, by name, in the order of starting."""

    def __init__(self, config: ExperimentConfig, device: str, deploy: ServiceDeployer, guard: DeviceGuard) -> None:
        self._config, self._device, self._deploy, self._guard = config, device, deploy, guard
        self._running: dict[str, RunningService[Any]] = {}
        self._engine_key = ""
        self._mps: MpsDaemon | None = None

    @property
    def running(self) -> Mapping[str, RunningService[Any]]:
        """Return the services that were started and not stopped, by name, in the order of starting."""
        return {name: self._running[name] for name in START_ORDER if name in self._running}

    @property
    def engine_info(self) -> EngineInfo | None:
        """Return what the engine reported when it was ready; None if none runs."""
        engine = self._running.get("vllm")
        return engine.info if engine is not None else None

    def failure(self) -> Failure | None:
        """Return why the first service that failed can no longer be measured, or None while all run."""
        return next((failure for service in self.running.values() if (failure := service.failure()) is not None), None)

    def processes(self) -> dict[str, Callable[[], list[int]]]:
        """Return a call for each service, and for the MPS daemon, that lists its processes."""
        listed = {name: service.pids for name, service in self.running.items()}
        return listed | ({"mps": self._mps.pids} if self._mps else {})

    def may_keep_engine(self, key: str) -> bool:
        """Return whether the engine runs, is well and has this key."""
        engine = self._running.get("vllm")
        return engine is not None and self._engine_key == key and engine.failure() is None

    def on_this_card(self, services: Services) -> Services:
        """Return the settings with which the services are measured: on the trial's own card, and as clients of its MPS daemon if one is asked for.

        Raises:
            ServiceError: MPS is forbidden here, or its daemon does not start.
        """
        # The user's own CUDA_VISIBLE_DEVICES is for the deployment.
        env = {name: {k: v for k, v in getattr(services, name).env.items() if k != "CUDA_VISIBLE_DEVICES"} for name in START_ORDER}
        if asks_for_mps(services):
            daemon = self._started_mps()
            for name, own in env.items():
                own.update(daemon.environment(getattr(services, name).mps_active_thread_pct))
        return Services(replace(services.vllm, env=env["vllm"]), replace(services.whisper, env=env["whisper"]))

    def _started_mps(self) -> MpsDaemon:
        if why := forbidden(self._config, self._device):
            raise ServiceError(Failure(FailureKind.INFEASIBLE, "tune_gpu", Phase.PREFLIGHT, why))
        if self._mps is None:
            daemon = MpsDaemon(self._guard.probe.info.uuid or self._guard.first_card)
            daemon.start()
            self._mps = daemon
        return self._mps

    def start_whisper(self, services: Services) -> float:
        """Start Whisper and return the seconds that took. Raise ServiceError."""
        whisper = self._running["whisper"] = self._deploy.whisper(services)
        whisper.start()
        return whisper.start_s or 0.0

    def start_engine(self, services: Services, key: str) -> RunningService[EngineInfo]:
        """Start vLLM and return it; give up if another service fails meanwhile. Raise ServiceError."""
        engine = self._deploy.vllm(services)
        engine.start(abort=self._lost)
        self._running["vllm"], self._engine_key = engine, key
        return engine

    def _lost(self) -> str | None:
        failure = self.failure()
        return failure.message if failure else None

    def stop(self, name: str) -> float:
        """Stop a service, if it runs, and return the seconds that took."""
        started = time.monotonic()
        service = self._running.pop(name, None)
        if service is not None:
            service.stop()
        return time.monotonic() - started

    def close(self) -> None:
        """Leave nothing running."""
        for name in START_ORDER:
            self.stop(name)
        if self._mps is not None:
            self._mps.stop()
            self._mps = None
        self._deploy.close()
