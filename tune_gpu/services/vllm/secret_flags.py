"""Pass secrets to a service by its environment only: every user of a machine can read the command lines of all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def shown_entries(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are on a command line by their places in the settings, each as a mapping with its name, by which a secret is known."""
    return {f"extra_args.{name}": {_dashed(name): value} for name, value in extra_args.items() if _variable_of(name, value) is None}
