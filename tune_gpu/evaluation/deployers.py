"""Where a candidate's services are started: as processes of this process (the CPU, a card that it holds), or in Ray actors that hold the card.

The evaluation knows only what both have in common.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.services.base import KindHost, LaunchSite, Service
from tune_gpu.services.running import RunningService


class ServiceDeployer(Protocol):
    """Makes the services of one trial, all on one device."""

    def visible_devices(self) -> str:
        """Return CUDA_VISIBLE_DEVICES as the services get it: index, UUID or MIG string, unchanged; empty if nobody has assigned any."""

    def prepare(self, services: Sequence[Service]) -> None:
        """Begin what the start of these services can do beforehand, without waiting for it."""

    def wait_prepared(self) -> float | None:
        """Wait until that is done and return the seconds waited, or None if nothing is prepared."""

    def make(self, service: Service) -> RunningService[Any]:
        """Return a service that is not yet started."""

    def close(self) -> None:
        """Leave nothing running that it made."""


class LocalDeployer:
    """Starts services as processes of this process, on the device that it was given itself.

    Args:
        hosts: what the services of a kind share, by kind; by default its own, made at the first use. Whoever passes one closes it.
    """

    def __init__(self, config: ExperimentConfig, device: str, hosts: dict[str, KindHost | None] | None = None) -> None:
        self._run, self._device = config.run, device
        self._hosts: dict[str, KindHost | None] = dict(hosts or {})
        self._lent = frozenset(self._hosts)

    def visible_devices(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def prepare(self, services: Sequence[Service]) -> None:
        for service in services:
            if (host := self._host(service)) is not None:
                host.prepare(service.settings)

    def wait_prepared(self) -> float | None:
        waited = [seconds for host in self._hosts.values() if host is not None and (seconds := host.wait()) is not None]
        return sum(waited) if waited else None

    def make(self, service: Service) -> RunningService[Any]:
        return service.launch(LaunchSite(self._device, self._run.port_range, self._host(service)))

    def close(self) -> None:
        """End what it shares among services; these are ended by whoever started them."""
        for kind in [kind for kind in self._hosts if kind not in self._lent]:
            if (host := self._hosts.pop(kind)) is not None:
                host.close()

    def _host(self, service: Service) -> KindHost | None:
        if service.kind.name not in self._hosts:
            self._hosts[service.kind.name] = service.kind.host(self._run, self._device)
        return self._hosts[service.kind.name]
