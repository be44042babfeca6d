"""Refuse secrets that would be on a command line, or that the search would vary and so record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.artifacts.redaction import secret_values
from tune_gpu.artifacts.secret_names import is_secret
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target
from tune_gpu.services.base import Service, ShowsEntries
from tune_gpu.services.registry import services_of

_SHOWN = ("model", "command", "url")
"""Settings that are on a command line, or in what is printed, of every kind that has them."""


def check_secrets(config: ExperimentConfig) -> None:
    """Raise UserError for a secret that every user could read, or that would be recorded."""
    for service in services_of(config.services):
        for place, value in _shown(service).items():
            if any(secret_values(value)):
                raise UserError(f"services.{service.name}.{place}: a secret, and every user can read a command line. Set it as a variable of the environment.")
    for name, spec in config.parameters.items():
        target = Target.parse(spec.target)
        if is_secret((target.entry or target.setting).rpartition(".")[2]) or any(secret_values(spec.values)):
            raise UserError(f"parameters.{name}.target={spec.target}: a secret cannot be searched. Set it once, in the environment.")


def _shown(service: Service) -> Mapping[str, Any]:
    own = {name: getattr(service.settings, name) for name in _SHOWN if hasattr(service.settings, name)}
    return {**own, **(service.kind.shown(service.settings) if isinstance(service.kind, ShowsEntries) else {})}
