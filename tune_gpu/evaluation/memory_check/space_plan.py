"""Predict a space on a device: what `plan` prints, and what a run checks before it launches a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_gpu.common.wording import counted
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.combined import (
    Unmodelled,
    by_service,
    decided,
    decided_columns,
    footprint_columns,
    known_parts,
    parted,
)
from tune_gpu.evaluation.memory_check.space_columns import active_columns, space_columns
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.values import to_builtin
from tune_gpu.services.base import ReservedMemory, Service, Versioned
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.memory_values import Beside, DeviceMemory, Footprint, Prediction
from tune_gpu.services.predictions import BesideMany, Predictions
from tune_gpu.services.registry import services_of


class Preflight:
    """Predictions for the candidates of one experiment on one device.

    Services whose memory grows are there first. Each one that reserves its memory then starts beside them and beside those that started before it.
    A candidate fits if all of them do.

    Args:
        config: the experiment.
        device: as it is now, with its co-tenants.
        calibrations: kind -> what earlier starts taught (`calibrations_of`); none by default.
        versions: kind -> version of its program to plan for; by default the installed one, or the one that this program was made for.
        start: how engines are started, `cold` or `warm`; by default as the experiment says (warm only on the CPU, with `run.warm_engine`).
        starts: what earlier starts of services took whose kinds have no model, or None.
    """

    def __init__(
        self, config: ExperimentConfig, device: DeviceMemory, calibrations: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None, start: str | None = None, starts: EarlierStarts | None = None,
    ) -> None:
        self.config, self.device, self.starts = config, device, starts
        self.calibrations = calibrations or {}
        self.start = start or ("warm" if config.run.warm_engine and device.kind == "cpu" else "cold")
        kinds = {service.kind.name: service.kind for service in services_of(config.services)}
        self.versions = {name: kind.version() for name, kind in kinds.items() if isinstance(kind, Versioned)} | dict(versions or {})
        """Kind -> version of its program that is planned for."""
        self._memories: dict[str, ReservedMemory | None] = {}
        self._from_starts: dict[str, list[Footprint]] = {}

    def predict(self, services: Sequence[Service]) -> Prediction:
        """Return the prediction for one candidate's services. Raise UserError for a value that a service cannot have."""
        growing, reserving = parted(services)
        footprints = {service.name: self.footprint(service) for service in growing}
        found: dict[str, Prediction] = {}
        parts, sigma = known_parts(footprints)
        for service in reserving:
            found[service.name] = self._memory(service).one(service.settings, Beside(dict(parts), sigma), self.device)
            parts[service.name] = found[service.name].takes_mib
        unknown = [name for name, footprint in footprints.items() if footprint is None]
        return decided(found, parts, sigma, unknown, self.device)

    def predict_space(self, space: SearchSpace) -> tuple[dict[str, np.ndarray], Predictions]:
        """Return every candidate of a space, as the parameters' values by name (None if inactive), and the predictions."""
        params = space_columns(space)
        count = len(next(iter(params.values()))) if params else 1
        check(self.config.services, "services.")
        columns = by_service(active_columns(space, params, self.config.services))
        growing, reserving = parted(services_of(self.config.services))
        footprints = {service.name: footprint_columns(service, columns.get(service.name, {}), self.footprint, count) for service in growing}
        parts = {name: grown.mean_mib for name, grown in footprints.items() if grown.known.any()}
        sigma = np.sqrt(sum((grown.sigma_mib**2 for grown in footprints.values()), start=np.zeros(count)))
        found: dict[str, Predictions] = {}
        for service in reserving:
            beside = BesideMany(dict(parts), sigma)
            found[service.name] = self._memory(service).many(service.settings, columns.get(service.name, {}), beside, self.device, count)
            parts[service.name] = found[service.name].takes_mib
        known = {name: grown.known for name, grown in footprints.items()}
        return params, decided_columns(found, BesideMany(parts, sigma), known, self.device, count)

    def footprint(self, service: Service) -> Footprint | None:
        """Return the memory of a service by its kind or, if that has no model of it, by what earlier starts took; None if there was none."""
        modelled = service.kind.footprint(service.settings, self.device)
        if modelled is not None or self.starts is None:
            return modelled
        taken = self.starts.footprint(service, self.device)
        if taken is not None:
            self._from_starts.setdefault(service.name, []).append(taken)
        return taken

    def unmodelled(self, service: Service) -> bool:
        """Return whether what a start takes can only be measured."""
        if service.reserves and not isinstance(self._memory(service), Unmodelled):
            return False
        return service.kind.footprint(service.settings, self.device) is None

    def models(self) -> dict[str, str]:
        """Return the models that were asked for, and where the shapes of each are from."""
        return {name: read_from for memory in self._memories.values() if memory is not None for name, read_from in memory.models().items()}

    def from_starts(self) -> dict[str, str]:
        """Return in words which predictions rest on earlier starts, by service."""
        return {name: _from_starts(footprints) for name, footprints in self._from_starts.items()}

    def learn_start(self, service: Service, log: str, info: Any) -> object | None:
        """Keep what a start taught, from its log and what the service reported; return None if it taught nothing."""
        return self._memory(service).learn_start(service.settings, log, info, self.device)

    def _memory(self, service: Service) -> ReservedMemory:
        kind = service.kind
        if kind.name not in self._memories:
            self._memories[kind.name] = kind.memory(self.calibrations.get(kind.name), self.versions.get(kind.name), warm=self.start == "warm")
        return self._memories[kind.name] or Unmodelled(service, self.footprint)


def _from_starts(footprints: Sequence[Footprint]) -> str:
    """Return `from 2 earlier starts (63 MiB ± 9)`, or ranges if candidates differ."""
    counts, mean, doubt = ([round(value) for value in values] for values in zip(*((each.starts, each.mean_mib, 2 * each.sigma_mib) for each in footprints), strict=True))
    n_starts = counted(counts[0], "earlier start") if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} earlier starts each"
    mib = f"{min(mean)}" if min(mean) == max(mean) else f"{min(mean)} to {max(mean)}"
    return f"from {n_starts} ({mib} MiB ± {max(doubt)})"


@dataclass(frozen=True)
class PlanRow:
    """One candidate in a plan."""

    params: dict[str, Any]
    prediction: Prediction


def rows_of(params: Mapping[str, np.ndarray], found: Predictions, limit: int | None = None) -> list[PlanRow]:
    """Return the first candidates, with their reasons."""
    count = len(found) if limit is None else min(limit, len(found))
    return [PlanRow(params_of(params, index), found.explain(index)) for index in range(count)]


def params_of(columns: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    """Return one configuration, without its inactive parameters."""
    return {name: to_builtin(values[index]) for name, values in columns.items() if values[index] is not None}
