"""Parse the configuration that is compared with a run's winner."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from tune_gpu.artifacts.finished_run import FinishedRun
from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check_each
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with


def parse_params(text: str, option: str) -> dict[str, Any]:
    """Parse `key=value,key=value` with YAML's values. Raise UserError."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{option} {text}: allowed is key=value,key=value … ({part.strip() or 'nothing'} is none)")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{option} {key.strip()}={value}: not a value of YAML") from error
    return found


def changed(config: ExperimentConfig, base: dict[str, Any], text: str, option: str) -> dict[str, Any]:
    """Return these parameters with those of the command line written over them.

    The configuration of today need not lie in the space, but its parameters must be known, with values of the kind that the setting has.

    Raises:
        UserError: an unknown parameter, or a value that its setting cannot have.
    """
    given = parse_params(text, option)
    for name, value in given.items():
        if name not in config.parameters:
            raise UserError(f"{option} {name}={value}: no such parameter; allowed: {', '.join(config.parameters)}")
        _check_value(config, name, value, option)
    params = {**base, **given}
    if missing := sorted(set(config.parameters) - set(params) - {n for n, spec in config.parameters.items() if spec.when}):
        raise UserError(f"{option} {text}: {missing[0]} is missing; the run has no baseline that would give it")
    check_each(settings_with(config, params), f"{option}: ")
    return params


def _check_value(config: ExperimentConfig, name: str, value: Any, option: str) -> None:
    known = [v for v in config.parameters[name].values or (config.parameters[name].low,) if v is not None]
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in known)
    kinds: tuple[type, ...] = (int, float) if numbers else tuple({type(v) for v in known})
    if known and (not isinstance(value, kinds) or isinstance(value, bool) != any(isinstance(v, bool) for v in known)):
        allowed = ", ".join(str(v) for v in known)
        raise UserError(f"{option} {name}={value}: allowed are values like {allowed}")


def winner_of_other(run: FinishedRun, other: FinishedRun) -> dict[str, Any]:
    """Return the other run's winner as parameters of this run. Raise UserError if they do not mean the same deployment."""
    theirs = settings_with(other.config, other.winner)
    unknown = [name for name in other.winner if name not in run.config.parameters]
    if unknown:
        raise UserError(f"--against {other.folder.run_id}: its parameter {unknown[0]} is none of {run.folder.run_id}")
    ours = settings_with(run.config, other.winner)
    for service in ("vllm", "whisper"):
        for field in dataclasses.fields(getattr(ours, service)):
            a, b = getattr(getattr(ours, service), field.name), getattr(getattr(theirs, service), field.name)
            if a != b:
                raise UserError(
                    f"--against {other.folder.run_id}: it deploys services.{service}.{field.name}={b}, {run.folder.run_id} {a}; "
                    "allowed are runs that differ in their parameters only"
                )
    return other.winner
