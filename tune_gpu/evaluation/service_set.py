"""The services of a candidate: started on the trial's own card, kept while nothing of theirs changes, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.deployers import ServiceDeployer
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.services.base import Reports, Service, start_order
from tune_gpu.services.mps import MpsDaemon
from tune_gpu.services.mps_policy import SETTING, asks_for_mps, forbidden
from tune_gpu.services.running import RunningService


class ServiceSet:
    """Holds what runs of the candidate under way, by name, in the order of starting."""

    def __init__(self, config: ExperimentConfig, device: str, deploy: ServiceDeployer, guard: DeviceGuard) -> None:
        self._config, self._device, self._deploy, self._guard = config, device, deploy, guard
        self._running: dict[str, RunningService[Any]] = {}
        self._started_as: dict[str, Service] = {}
        self._mps: MpsDaemon | None = None

    @property
    def running(self) -> Mapping[str, RunningService[Any]]:
        """Return the services that were started and not stopped, by name, in the order of starting."""
        return {service.name: self._running[service.name] for service in start_order(list(self._started_as.values())) if service.name in self._running}

    def started(self) -> list[Service]:
        """Return the services that run, as they were started, in the order of starting."""
        return [self._started_as[name] for name in self.running]

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """Return what each service reported of itself when it was ready, for services that report anything."""
        return {name: service.info.as_dict() for name, service in self.running.items() if isinstance(service.info, Reports)}

    def failure(self) -> Failure | None:
        """Return why the first service that failed can no longer be measured, or None while all run."""
        return next((failure for service in self.running.values() if (failure := service.failure()) is not None), None)

    def processes(self) -> dict[str, Callable[[], list[int]]]:
        """Return a call for each service, and for the MPS daemon, that lists its processes."""
        listed = {name: service.pids for name, service in self.running.items()}
        return listed | ({"mps": self._mps.pids} if self._mps else {})

    def processes_on_the_device(self) -> dict[str, Callable[[], list[int]]]:
        """Return the same without services that use no card, if the device is one: they are never on it."""
        elsewhere = {name for name in self.running if self._device == "cuda" and not self._started_as[name].gpus.cards}
        return {name: pids for name, pids in self.processes().items() if name not in elsewhere}

    def not_kept(self, wanted: Sequence[Service]) -> list[str]:
        """Return the names of the running services that the next candidate cannot use, in the order in which they are stopped."""
        keys = {service.name: service.reuse_key for service in wanted}
        kept = {
            name
            for name, service in self._running.items()
            if keys.get(name) is not None and self._started_as[name].reuse_key == keys[name] and service.failure() is None
        }
        return [name for name in reversed(list(self.running)) if name not in kept]

    def not_reusable(self) -> list[str]:
        """Return the names of the running services that no other candidate may use."""
        return [name for name in self.running if self._started_as[name].reuse_key is None]

    def reserving(self) -> list[str]:
        """Return the names of the running services that have reserved their memory."""
        return [name for name in self.running if self._started_as[name].reserves]

    def on_this_card(self, services: Sequence[Service]) -> tuple[Service, ...]:
        """Return the services as they are measured: on the trial's own card, and as clients of its MPS daemon if one is asked for.

        Raises:
            ServiceError: MPS is forbidden here, or its daemon does not start.
        """
        daemon = self._started_mps() if asks_for_mps(services) else None
        return tuple(self._on_this_card(service, daemon) for service in services)

    def _on_this_card(self, service: Service, daemon: MpsDaemon | None) -> Service:
        if not any(each.name == "env" for each in fields(service.settings)):
            return service
        # The user's own CUDA_VISIBLE_DEVICES is for the deployment.
        env = {name: value for name, value in service.settings.env.items() if name != "CUDA_VISIBLE_DEVICES"}
        if daemon is not None:
            env |= daemon.environment(getattr(service.settings, SETTING, None))
        return replace(service, settings=replace(service.settings, env=env))

    def _started_mps(self) -> MpsDaemon:
        if why := forbidden(self._config, self._device):
            raise ServiceError(Failure(FailureKind.INFEASIBLE, "tune_gpu", Phase.PREFLIGHT, why))
        if self._mps is None:
            daemon = MpsDaemon(self._guard.probe.info.uuid or self._guard.first_card)
            daemon.start()
            self._mps = daemon
        return self._mps

    def start(self, service: Service) -> RunningService[Any]:
        """Start a service and return it; give up if another one fails meanwhile. Raise ServiceError; then nothing of it is left running."""
        made = self._deploy.make(service)
        if not service.reserves:  # it counts as running from its first process on, so that it is ended with the others
            self._running[service.name], self._started_as[service.name] = made, service
        made.start(abort=lambda: self._lost_beside(service.name))
        self._running[service.name], self._started_as[service.name] = made, service
        return made

    def _lost_beside(self, name: str) -> str | None:
        failures = (service.failure() for other, service in self.running.items() if other != name)
        return next((failure.message for failure in failures if failure is not None), None)

    def stop(self, name: str) -> float:
        """Stop a service, if it runs, and return the seconds that took."""
        started = time.monotonic()
        service = self._running.pop(name, None)
        self._started_as.pop(name, None)
        if service is not None:
            service.stop()
        return time.monotonic() - started

    def close(self) -> None:
        """Leave nothing running."""
        for name in list(self.running):
            self.stop(name)
        if self._mps is not None:
            self._mps.stop()
            self._mps = None
        self._deploy.close()
