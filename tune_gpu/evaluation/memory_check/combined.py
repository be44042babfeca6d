"""The memory of several services on one device: what grows, what is reserved, and what decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tune_gpu.config.targets import Target, written_over
from tune_gpu.services.base import Service, start_order
from tune_gpu.services.memory_values import Beside, DeviceMemory, Footprint, MemoryVerdict, Prediction
from tune_gpu.services.predictions import CODE, VERDICTS, BesideMany, Columns, Predictions, groups_of

_RANK = {MemoryVerdict.FITS: 0, MemoryVerdict.NOT_MODELLED: 1, MemoryVerdict.UNCERTAIN: 2, MemoryVerdict.INFEASIBLE: 3}
"""The worst verdict of a candidate's services is the candidate's."""
_CODE_RANK = np.array([_RANK[verdict] for verdict in VERDICTS])
FootprintOf = Callable[[Service], Footprint | None]
"""Returns the memory of a service that grows, or None if it is not known."""
_START_SIGMA_MIB = 100.0
"""Standard deviation of the free memory, in a space without an engine."""


def parted(services: Sequence[Service]) -> tuple[list[Service], list[Service]]:
    """Return the services whose memory grows, and those that reserve theirs, both in the order of starting."""
    ordered = start_order(services)
    return [service for service in ordered if not service.reserves], [service for service in ordered if service.reserves]


def by_service(columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the columns by service, then by setting, from columns by target (`llm.max_model_len`)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for target, values in columns.items():
        service, _, setting = target.partition(".")
        found.setdefault(service, {})[setting] = values
    return found


def known_parts(footprints: Mapping[str, Footprint | None]) -> tuple[dict[str, float], float]:
    """Return the modelled footprints in MiB by service, and the standard deviation of their sum."""
    known = {name: footprint for name, footprint in footprints.items() if footprint is not None}
    return {name: each.mean_mib for name, each in known.items()}, math.hypot(*(each.sigma_mib for each in known.values()))


@dataclass(frozen=True)
class GrownMany:
    """The footprint of a service in every candidate, in MiB, 0 where it is not known. Shapes (n,)."""

    mean_mib: np.ndarray
    sigma_mib: np.ndarray
    known: np.ndarray


def footprint_columns(service: Service, columns: Columns, footprint_of: FootprintOf, count: int) -> GrownMany:
    """Return the footprint of a service in every candidate.

    Args:
        service: as the space has it.
        columns: what varies of it, by setting.
        footprint_of: returns that of one service.
        count: how many candidates there are.
    """
    mean, sigma, known = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    for rows, values in groups_of(columns, count):
        changes = [(Target.parse(f"{service.name}.{setting}"), value) for setting, value in values.items()]
        footprint = footprint_of(replace(service, settings=written_over(service.settings, changes)))
        if footprint is not None:
            mean[rows], sigma[rows], known[rows] = footprint.mean_mib, footprint.sigma_mib, True
    return GrownMany(mean, sigma, known)


def decided(found: Mapping[str, Prediction], parts: Mapping[str, float], sigma_mib: float, unknown: Sequence[str], device: DeviceMemory) -> Prediction:
    """Return the prediction of a candidate: that of the service that has least to spare.

    Args:
        found: service that reserves -> its prediction.
        parts: what every service holds, by name.
        sigma_mib: standard deviation of what grows.
        unknown: services whose memory is not known.
        device: that they share.
    """
    if not found:
        chosen = _without_engine(Beside(parts, sigma_mib), device)
    else:
        name = max(found, key=lambda each: (_RANK[found[each].verdict], -_spare(found[each])))
        reason = found[name].reason if len(found) == 1 else f"{name}: {found[name].reason}"
        chosen = replace(found[name], service=name, reason=reason)
    chosen = replace(chosen, parts_mib={name: mib for name, mib in chosen.parts_mib.items() if name not in unknown})
    if not unknown or chosen.verdict is MemoryVerdict.INFEASIBLE:
        return chosen
    verdict = MemoryVerdict.UNCERTAIN if chosen.verdict is MemoryVerdict.FITS else chosen.verdict
    return replace(chosen, verdict=verdict, reason=f"{chosen.reason}; what {' and '.join(unknown)} takes is not known")


def _spare(prediction: Prediction) -> float:
    return math.inf if prediction.headroom_mib is None else prediction.headroom_mib


def _without_engine(beside: Beside, device: DeviceMemory) -> Prediction:
    """Return the prediction of services of which none reserves its memory."""
    spare, doubt = device.free_mib - beside.total_mib, 2 * math.hypot(_START_SIGMA_MIB, beside.sigma_mib)
    verdict = MemoryVerdict.FITS if spare >= doubt else MemoryVerdict.INFEASIBLE if spare < -doubt else MemoryVerdict.UNCERTAIN
    reason = f"{beside.describe() or 'nothing'} of {device.free_mib:.0f} MiB free; {spare:.0f} MiB to spare"
    parts = {name: round(mib, 1) for name, mib in beside.parts_mib.items()} | {"neighbours": round(device.used_mib, 1)}
    return Prediction(verdict, reason, parts, headroom_mib=round(spare, 1), shortfall_mib=round(max(0.0, -spare), 1), uncertainty_mib=round(doubt, 1), likely=spare >= 0)


def decided_columns(found: Mapping[str, Predictions], beside: BesideMany, known: Mapping[str, np.ndarray], device: DeviceMemory, count: int) -> Predictions:
    """Return the predictions of all candidates, as `decided` does for one.

    Args:
        found: service that reserves -> its predictions.
        beside: what every service holds.
        known: service whose memory grows -> whether it is known in each candidate.
        device: that they share.
        count: how many candidates there are.
    """
    names = list(found)
    if not names:
        return _without_engine_columns(beside, known, device, count)
    ranks = np.stack([_CODE_RANK[found[name].verdict] for name in names])
    spare = np.stack([np.where(np.isnan(found[name].headroom_mib), np.inf, found[name].headroom_mib) for name in names])
    worst = ranks.max(axis=0)
    chosen = np.where(ranks == worst, spare, np.inf).argmin(axis=0)
    # Infinite everywhere: a service of the worst rank without a number.
    chosen = np.where(ranks[chosen, np.arange(count)] == worst, chosen, ranks.argmax(axis=0))

    def of_chosen(column: str) -> np.ndarray:
        return np.stack([getattr(found[name], column) for name in names])[chosen, np.arange(count)]

    def explain(index: int) -> Prediction:
        parts = beside.at(index)
        return decided({name: found[name].explain(index) for name in names}, parts.parts_mib, parts.sigma_mib, _unknown_at(known, index), device)

    verdict = of_chosen("verdict")
    unsure = (verdict == CODE[MemoryVerdict.FITS]) & ~_all_known(known, count)
    verdict = np.where(unsure, CODE[MemoryVerdict.UNCERTAIN], verdict)
    return Predictions(
        verdict, of_chosen("kv_cache_tokens"), of_chosen("max_concurrency"), of_chosen("headroom_mib"), of_chosen("shortfall_mib"),
        np.asarray(beside.total_mib), explain,
    )  # fmt: skip


def _all_known(known: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    return np.logical_and.reduce([np.ones(count, bool), *known.values()])


def _unknown_at(known: Mapping[str, np.ndarray], index: int) -> list[str]:
    return [name for name, here in known.items() if not here[index]]


def _without_engine_columns(beside: BesideMany, known: Mapping[str, np.ndarray], device: DeviceMemory, count: int) -> Predictions:
    spare = device.free_mib - np.broadcast_to(beside.total_mib, (count,))
    doubt = 2 * np.hypot(_START_SIGMA_MIB, beside.sigma_mib)
    fits = np.where(_all_known(known, count), CODE[MemoryVerdict.FITS], CODE[MemoryVerdict.UNCERTAIN])
    verdict = np.where(spare >= doubt, fits, np.where(spare < -doubt, CODE[MemoryVerdict.INFEASIBLE], CODE[MemoryVerdict.UNCERTAIN]))
    nothing = np.full(count, np.nan)

    def explain(index: int) -> Prediction:
        parts = beside.at(index)
        return decided({}, parts.parts_mib, parts.sigma_mib, _unknown_at(known, index), device)

    return Predictions(verdict, nothing, nothing, spare, np.maximum(0.0, -spare), np.asarray(beside.total_mib), explain)


class Unmodelled:
    """A service that reserves its memory and has no model: it takes what its footprint says, if anything."""

    def __init__(self, service: Service, footprint_of: FootprintOf) -> None:
        self._service, self._footprint_of = service, footprint_of

    def one(self, settings: Any, _beside: Beside, _device: DeviceMemory) -> Prediction:
        """Return that it is not modelled, with what it takes as far as that is known."""
        footprint = self._footprint_of(replace(self._service, settings=settings))
        reason = f"not modelled: what a service of kind {self._service.kind.name} reserves"
        return Prediction(MemoryVerdict.NOT_MODELLED, reason, takes_mib=footprint.mean_mib if footprint is not None else 0.0)

    def many(self, settings: Any, columns: Columns, beside: BesideMany, device: DeviceMemory, count: int) -> Predictions:
        """Return the same for many candidates."""
        takes = footprint_columns(replace(self._service, settings=settings), columns, self._footprint_of, count).mean_mib
        nothing = np.full(count, np.nan)
        code = np.full(count, CODE[MemoryVerdict.NOT_MODELLED])
        return Predictions(code, nothing, nothing, nothing, np.zeros(count), takes, lambda index: self.one(settings, beside.at(index), device))

    def models(self) -> Mapping[str, str]:
        """Return nothing: no shapes were read."""
        return {}

    def learn_start(self, _settings: Any, _log: str, _info: Any, _device: DeviceMemory) -> None:
        """Learn nothing."""
