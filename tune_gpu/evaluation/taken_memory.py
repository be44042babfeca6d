"""Measure what services take whose kinds have no model of their memory, and keep it for the memory checks to come."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

from tune_gpu.common.failures import ServiceError
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.evaluation.service_set import ServiceSet
from tune_gpu.services.base import Service
from tune_gpu.services.running import RunningService
from tune_gpu.telemetry.probe import total
from tune_gpu.telemetry.sampler import DeviceStats


class TakenMemory:
    """Keeps the peak of each start: once it is warmed, and again after each evaluation in which it was used.

    The peak is that of the artifacts: by NVML for each process on a card, the resident memory of the process tree on the CPU.

    Args:
        check: keeps the peaks.
        services: what runs.
        guard: the cards of the trial.
    """

    def __init__(self, check: PreflightCheck, services: ServiceSet, guard: DeviceGuard) -> None:
        self._check, self._services, self._guard = check, services, guard
        self._starts: dict[str, tuple[RunningService[Any], str]] = {}

    def warmed(self, service: Service) -> None:
        """Keep what a service takes that was just warmed."""
        self._keep(service, (), under_load=False)

    def loaded(self, windows: Sequence[DeviceStats]) -> None:
        """Keep what the running services took in these windows, and take now, after all of the load."""
        if windows:
            for service in self._services.started():
                self._keep(service, [window.peak_service_mib.get(service.name) for window in windows], under_load=True)

    def _keep(self, service: Service, peaks: Sequence[float | None], *, under_load: bool) -> None:
        running = self._services.running.get(service.name)
        if running is None or running.failure() is not None or not self._check.unmodelled(service):
            return
        cards = max(1, service.gpus.cards)
        known = [peak / cards for peak in peaks if peak is not None]  # the windows' peak is the sum of its cards
        known += [mib for mib in self._held_mib(running) if mib is not None]
        if peak := max(known, default=0.0):
            self._check.learn_taken(service, self._start(service.name, running), peak, under_load=under_load)

    def _held_mib(self, running: RunningService[Any]) -> list[float | None]:
        """Return what the service holds now on each card; nothing if no card reports it."""
        with contextlib.suppress(ServiceError):  # the driver does not answer
            pids = running.pids()
            return [total(held.values()) for card in self._guard.cards() if (held := card.memory_by_pid_mib(pids)) is not None]
        return []

    def _start(self, name: str, running: RunningService[Any]) -> str:
        known = self._starts.get(name)
        if known is None or known[0] is not running:
            known = self._starts[name] = running, uuid.uuid4().hex[:12]
        return known[1]
