"""Ask the programs of a space's services which values they refuse, before anything starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check
from tune_gpu.services.base import AsksProgram, Refusal
from tune_gpu.services.registry import services_of


def check_flags(config: ExperimentConfig, space: SearchSpace) -> None:
    """Raise UserError for a value that a service's program refuses. Nothing is asked if the services run on a cluster."""
    if config.ray.address is not None:
        return
    for service in services_of(config.services):
        if isinstance(service.kind, AsksProgram):
            _check_service(config, space, service.name, service.kind)


def _check_service(config: ExperimentConfig, space: SearchSpace, name: str, kind: AsksProgram) -> None:
    candidates = list(_candidates(config, space, name, kind.asked))
    own = [next(each.settings for each in services_of(settings_with(config, params)) if each.name == name) for _, params in candidates]
    for (where, params), refusal in zip(candidates, kind.refused(own), strict=True):
        if refusal is not None:
            raise UserError(f"{_key(config, name, where, params, refusal)}: {refusal.reason}. Change or remove it.")


def _candidates(config: ExperimentConfig, space: SearchSpace, service: str, asked: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the baseline, and one candidate for every value of each knob (not the whole product), with the name of the knob that varies."""
    yield "", _candidate(space, config.baseline)
    for parameter in space.parameters.values():
        if parameter.target.service == service and parameter.target.setting in asked:
            for value in values_to_check(parameter):
                yield parameter.name, _candidate(space, {**config.baseline, **_parents(space, parameter), parameter.name: value})


def _parents(space: SearchSpace, parameter: Parameter) -> dict[str, Any]:
    """Return values of other parameters that make this one active."""
    found: dict[str, Any] = {}
    for name, values in parameter.when:
        found |= _parents(space, space.parameters[name]) | {name: values[0]}
    return found


def _candidate(space: SearchSpace, wanted: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if space.active(parameter, params):
            params[name] = wanted[name] if name in wanted else next(values_to_check(parameter))
    return params


def _key(config: ExperimentConfig, service: str, where: str, params: Mapping[str, Any], refusal: Refusal) -> str:
    """Return the key to change: the knob that varies, or else the knob or the setting that the refusal means."""
    if where:
        return f"parameters.{where}={params[where]}"
    targets = [f"{service}.{setting}" for setting in refusal.settings]
    for name in params:
        if config.parameters[name].target in targets:
            return f"parameters.{name}={params[name]}"
    return f"services.{targets[0]}"
