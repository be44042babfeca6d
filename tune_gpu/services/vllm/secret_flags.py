"""Pass secrets to a service by its environment only: every user of a machine can read the command lines of all processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tune_gpu.artifacts.redaction import secret_values
from tune_gpu.artifacts.secret_names import is_secret
from tune_gpu.common.errors import UserError
from tune_gpu.config.targets import Target

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig

_VARIABLES = {"hf-token": "HF_TOKEN"}
"""vLLM's flags that hold a secret, and the variable that replaces each. `--api-key` is set by every evaluation."""


def shown_flags(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that may be on a command line."""
    return {name: value for name, value in extra_args.items() if _variable_of(name, value) is None}


def variables_of(extra_args: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that replace secret flags."""
    return {variable: str(value) for name, value in extra_args.items() if (variable := _variable_of(name, value)) is not None}


def _variable_of(name: str, value: Any) -> str | None:
    """Return the variable of a flag whose value is a secret, or None. `hf_token: true` is not one: it refers to the user's login."""
    return _VARIABLES.get(_dashed(name)) if isinstance(value, str) else None


def _dashed(name: str) -> str:
    return name.strip("-").replace("_", "-")


def check_secrets(config: ExperimentConfig) -> None:
    """Raise UserError for a secret that would be on a command line, or that the search would vary and so record."""
    services: dict[str, Any] = {}
    for service, settings in config.services.items():
        services |= {f"services.{service}.{each.name}": getattr(settings, each.name) for each in fields(settings) if each.name in ("model", "command", "url")}
        for name, value in getattr(settings, "extra_args", {}).items():
            if _variable_of(name, value) is None:
                services[f"services.{service}.extra_args.{name}"] = {_dashed(name): value}
    for key, value in services.items():
        if any(secret_values(value)):
            raise UserError(f"{key}: a secret, and every user can read a command line. Set it as a variable of the environment.")
    for name, spec in config.parameters.items():
        target = Target.parse(spec.target)
        if is_secret((target.entry or target.setting).rpartition(".")[2]) or any(secret_values(spec.values)):
            raise UserError(f"parameters.{name}.target={spec.target}: a secret cannot be searched. Set it once, in the environment.")
