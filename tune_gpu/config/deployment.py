"""From a candidate's parameters to what is deployed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, Services, VllmSettings


def deployment(config: ExperimentConfig, params: Mapping[str, Any]) -> Services:
    """The services' settings with the candidate's parameters written over them.

    Raises:
        UserError: a parameter whose target is no setting of a service.
    """
    services = deepcopy(config.services)
    for name, value in params.items():
        target = config.parameters[name].target
        service, _, setting = target.partition(".")
        holder = getattr(services, service) if service in (each.name for each in dataclasses.fields(services)) else None
        if holder is not None and setting.startswith(("extra_args.", "env.")):
            kind, _, key = setting.partition(".")
            getattr(holder, kind)[key] = str(value) if kind == "env" else value
        elif holder is not None and setting in (each.name for each in dataclasses.fields(holder)):  # not `__dict__`, which is all of them
            setattr(holder, setting, value)
        else:
            known = [f"{s.name}.{f.name}" for s in dataclasses.fields(Services) for f in dataclasses.fields(getattr(services, s.name))]
            raise UserError(f"parameters.{name}.target={target}: no such setting; allowed: {', '.join(known)}")
    return services


def engine_key(settings: VllmSettings) -> str:
    """Equal for engines that need not be restarted between two candidates."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True, default=str).encode()).hexdigest()[:12]
