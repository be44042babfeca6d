"""Read the values that may be written in several forms (`32k`) once, so that everything else computes with one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tune_gpu.config.rules import Reader, types_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target


def with_values_read(layer: Mapping[str, Any], schema: type[ExperimentConfig]) -> dict[str, Any]:
    """Return a layer of a configuration, not yet merged, with the settings of its services read."""
    services = layer.get("services")
    if not isinstance(services, dict):
        return dict(layer)
    classes = types_of(types_of(schema)["services"])
    return {**layer, "services": {name: _read(settings, classes[name]) for name, settings in services.items()}}


def _read(settings: Any, schema: type) -> Any:
    if not isinstance(settings, dict):
        return settings
    return settings | {name: read(settings[name]) for name, read in _readers(schema).items() if name in settings}


def _readers(schema: Any) -> dict[str, Reader]:
    return {each.name: each.metadata["read"] for each in fields(schema) if each.metadata.get("read") is not None}


def read_parameters(config: ExperimentConfig) -> None:
    """Read the values of parameters, of the baseline, and of the conditions that name these values."""
    for name, spec in config.parameters.items():
        target = Target.parse(spec.target)
        if target.service not in config.services or (read := _readers(config.services[target.service]).get(target.setting)) is None:
            continue
        if spec.values is not None:
            spec.values = [read(value) for value in spec.values]
        if name in config.baseline:
            config.baseline[name] = read(config.baseline[name])
        for other in config.parameters.values():
            if name in other.when:
                other.when[name] = [read(value) for value in other.when[name]]
