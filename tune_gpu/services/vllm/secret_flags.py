"""Secrets reach a service by its environment only: every user of a machine can read the command lines of all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.artifacts.redaction import secret_values
from tune_gpu.artifacts.secret_names import is_secret
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target

_VARIABLES = {"hf-token": "HF_TOKEN"}
"""vLLM's flags that hold a secret, and the variable that it reads in their place. `--api-key` is every evaluation's own."""


def shown_flags(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that may stand on a command line."""
    return {name: value for name, value in extra_args.items() if _variable_of(name, value) is None}


def variables_of(extra_args: Mapping[str, Any]) -> dict[str, str]:
    """Return what is handed over by environment in place of a flag."""
    return {variable: str(value) for name, value in extra_args.items() if (variable := _variable_of(name, value)) is not None}


def _variable_of(name: str, value: Any) -> str | None:
    """Of a flag whose value is a secret; `hf_token: true` is none, it names the login that the user has made."""
    return _VARIABLES.get(_dashed(name)) if isinstance(value, str) else None


def _dashed(name: str) -> str:
    return name.strip("-").replace("_", "-")


def check_secrets(config: ExperimentConfig) -> None:
    """Raises UserError for a secret that would stand on a command line, or that the search would vary and so write down."""
    services: dict[str, Any] = {"services.vllm.model": config.services.vllm.model, "services.whisper.model": config.services.whisper.model}
    for name, value in config.services.vllm.extra_args.items():
        if _variable_of(name, value) is None:
            services[f"services.vllm.extra_args.{name}"] = {_dashed(name): value}
    for key, value in services.items():
        if any(secret_values(value)):
            raise UserError(f"{key}: it holds a secret, and every user can read a command line. Give it by environment, as a variable.")
    for name, spec in config.parameters.items():
        target = Target.parse(spec.target)
        if is_secret((target.entry or target.setting).rpartition(".")[2]) or any(secret_values(spec.values)):
            raise UserError(f"parameters.{name}.target={spec.target}: a secret cannot be searched. Set it once, in the environment.")
