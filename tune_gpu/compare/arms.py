"""The arms of a comparison: their parameters, where these come from, and which of them lie outside the run's space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tune_gpu.artifacts.finished_run import FinishedRun
from tune_gpu.artifacts.records.comparison import ArmSource, arm_label
from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check_each
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.search.space import SearchSpace


@dataclass(frozen=True)
class Origin:
    """Where an arm's parameters come from."""

    source: ArmSource
    outside: Mapping[str, Any] = field(default_factory=dict)
    """Values that the run's space does not have."""

    @property
    def label(self) -> str:
        """Return what to print beside the arm's name; empty for an arm of the run's own."""
        return arm_label(self.source, self.outside)


def make_origin(config: ExperimentConfig, params: Mapping[str, Any], source: ArmSource) -> Origin:
    """Return the origin of an arm of a run with this configuration."""
    known = SearchSpace.from_specs(config.parameters).parameters
    return Origin(source, {name: value for name, value in params.items() if name in known and value not in known[name]})


def changed_params(config: ExperimentConfig, base: Mapping[str, Any], text: str, option: str) -> dict[str, Any]:
    """Return the parameters of `base` with those of the command line (`key=value,key=value`) in their place.

    They need not lie in the space, but each must be one of its parameters, with a value of the kind that its setting has.

    Raises:
        UserError: an unknown parameter, a value that its setting cannot have, or a parameter that has no value.
    """
    given = _parsed(text, option)
    for name, value in given.items():
        if name not in config.parameters:
            raise UserError(f"{option} {name}={value}: no such parameter. Use one of {', '.join(config.parameters)}.")
        _check_kind(config, name, value, option)
    params = {**base, **given}
    if missing := sorted(set(config.parameters) - set(params) - {name for name, spec in config.parameters.items() if spec.when}):
        raise UserError(f"{option} {text}: {missing[0]} is missing, and the run has no baseline that gives it. Add {missing[0]}=VALUE.")
    check_each(settings_with(config, params), f"{option}: ")
    return params


def _parsed(text: str, option: str) -> dict[str, Any]:
    """Return the values of `key=value,key=value`, read as YAML. Raise UserError."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{option} {text}: {part.strip() or 'an empty part'} is not KEY=VALUE. Give KEY=VALUE,KEY=VALUE.")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{option} {key.strip()}={value}: not a value in YAML. Quote it.") from error
    return found


def _check_kind(config: ExperimentConfig, name: str, value: Any, option: str) -> None:
    known = [v for v in config.parameters[name].values or (config.parameters[name].low,) if v is not None]
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in known)
    kinds: tuple[type, ...] = (int, float) if numbers else tuple({type(v) for v in known})
    if known and (not isinstance(value, kinds) or isinstance(value, bool) != any(isinstance(v, bool) for v in known)):
        raise UserError(f"{option} {name}={value}: not a value of its kind. Use one like {', '.join(map(str, known))}.")


def winner_of_other(run: FinishedRun, other: FinishedRun) -> dict[str, Any]:
    """Return the other run's winner as parameters of this run. Raise UserError if both do not mean the same deployment."""
    option = f"--against {other.folder.run_id}"
    theirs = settings_with(other.config, other.winner)
    unknown = [name for name in other.winner if name not in run.config.parameters]
    if unknown:
        raise UserError(f"{option}: its parameter {unknown[0]} is not one of {run.folder.run_id}. Give a run with the same parameters.")
    ours = settings_with(run.config, other.winner)
    names, others = [name for name, _ in ours.items()], [name for name, _ in theirs.items()]
    if names != others:
        raise UserError(f"{option}: it deploys {', '.join(others)}, {run.folder.run_id} {', '.join(names)}. Give a run of the same services.")
    for service in names:
        for setting in dataclasses.fields(ours[service]):
            a, b = getattr(ours[service], setting.name), getattr(theirs[service], setting.name, None)
            if a != b:
                raise UserError(
                    f"{option}: it deploys services.{service}.{setting.name}={b}, {run.folder.run_id} {a}. Give a run that differs in its parameters only."
                )
    return other.winner
