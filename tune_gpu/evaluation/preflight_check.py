"""The memory check of a running trial: refuse a candidate that cannot fit before anything of it starts, and learn from each start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.cards import UnknownMemory, this_card, this_node
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.services.base import Service
from tune_gpu.services.deployment import Deployment
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict
from tune_gpu.services.registry import calibrations_of
from tune_gpu.services.running import RunningService

StoreT = TypeVar("StoreT")


def device_memory(kind: str, card: str = "0") -> DeviceMemory:
    """Return the memory of the device now: of the card that Ray assigned, or of the NUMA node that an engine on the CPU will read.

    Raises:
        UnknownMemory: the card does not report its memory.
        ServiceError: the card does not answer (`measurement_invalid`).
    """
    try:
        return this_node() if kind == "cpu" else this_card(card)
    except UnknownMemory:
        raise
    except UserError as error:
        raise ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.PREFLIGHT, str(error))) from error


class PreflightCheck:
    """Checks each candidate against the device as it was before anything of this run was on it.

    A model whose architecture cannot be read is logged and not refused: nothing shows that it does not fit.
    """

    def __init__(self, config: ExperimentConfig, kind: str, log: Callable[[str], None], card: str = "0") -> None:
        self._kind, self._log, self._card = kind, log, card
        self._preflight: Preflight | None = None
        try:
            before = device_memory(kind, card)
        except UnknownMemory as error:
            log(f"preflight: left out, because {error}")
            return
        self._neighbours_mib = before.used_mib
        self._preflight = Preflight(config, before, self._opened(partial(calibrations_of, config.services)), starts=self._opened(EarlierStarts))

    def _opened(self, store: Callable[[], StoreT]) -> StoreT | None:
        """Return what is kept of earlier starts, or None if it cannot be read."""
        try:
            return store()
        except UserError as error:
            self._log(f"what earlier starts showed cannot be used: {error}")
            return None

    def check(self, deployment: Deployment) -> None:
        """Raise ServiceError (`infeasible`, phase `preflight`) for services that cannot fit, even with the prediction's uncertainty."""
        if self._preflight is None:
            return
        self._look(self._preflight)
        try:
            found = self._preflight.predict(deployment.services)
        except UserError as error:
            self._log(f"preflight: {error}")
            return
        if found.verdict is MemoryVerdict.INFEASIBLE:
            share_mib = max(1.0, sum(found.parts_mib.values()))
            raise ServiceError(
                Failure(FailureKind.INFEASIBLE, found.service or "tune_gpu", Phase.PREFLIGHT, found.reason, shortfall=found.shortfall_mib / share_mib)
            )

    def about_to_start(self) -> None:
        """Read the device as the next service will find it."""
        if self._preflight is not None:
            self._look(self._preflight)

    def learn(self, engine: RunningService[Any], service: Service) -> None:
        """Keep the calibration from this engine's start, for every later prediction of these settings on this device."""
        if engine.info is None or self._preflight is None:
            return
        try:
            self._preflight.learn_start(service, engine.log(), engine.info)
        except UserError as error:
            self._log(f"the calibration from this start is not kept: {error}")

    def unmodelled(self, service: Service) -> bool:
        """Return whether what a start of this service takes can only be measured."""
        if self._preflight is None or self._preflight.starts is None:
            return False
        try:
            return self._preflight.unmodelled(service)
        except UserError:  # a value that its model refuses: `check` has logged it
            return False

    def learn_taken(self, service: Service, start: str, mib: float, *, under_load: bool) -> None:
        """Keep the peak of a start, for every later prediction of this service on this device. `start` is a name that no other start has."""
        if self._preflight is None or self._preflight.starts is None:
            return
        try:
            self._preflight.starts.learn(service, self._preflight.device, start, mib, under_load=under_load)
        except UserError as error:
            self._log(f"what {service.name} took is not kept: {error}")

    def _look(self, preflight: Preflight) -> None:
        """Take the device's present total. A reading that it does not report changes nothing."""
        with contextlib.suppress(UnknownMemory):
            now = device_memory(self._kind, self._card)
            preflight.device = replace(now, used_mib=min(self._neighbours_mib, now.total_mib))
