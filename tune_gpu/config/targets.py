"""Where a parameter's value goes: one setting of one service, or one entry of its `extra_args` or `env`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import nearest

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig
    from tune_gpu.config.service_settings import SpaceServices

_SettingsT = TypeVar("_SettingsT")


@dataclass(frozen=True)
class Target:
    """A parameter's `target`, parsed: `vllm.gpu_memory_utilization`, `vllm.extra_args.seed`, `whisper.env.OMP_NUM_THREADS`."""

    service: str
    setting: str
    entry: str | None = None
    """The key in `extra_args` or `env`; None for a setting of its own."""

    @classmethod
    def parse(cls, dotted: str) -> Target:
        """Return the target that the text means; `check` finds out if there is such a setting."""
        service, _, setting = dotted.partition(".")
        name, dot, entry = setting.partition(".")
        return cls(service, name, entry if dot else None)

    def __str__(self) -> str:
        return ".".join(part for part in (self.service, self.setting or None, self.entry) if part is not None)

    def check(self, parameter: str, services: SpaceServices) -> None:
        """Raise UserError if no service has this setting, or if it is a mapping and no entry is named."""
        key = f"parameters.{parameter}.target={self}"
        names = [name for name, _ in services.items()]
        if self.service not in names:
            raise UserError(f"{key}: no such service{nearest(self.service, names)}. Use a setting of one of {', '.join(names)}.")
        own = services[self.service]
        known = [each.name for each in dataclasses.fields(own) if each.name != "kind"]
        if self.setting not in known or (self.entry is not None and self.setting not in mappings_of(own)):
            raise UserError(
                f"{key}: no such setting{nearest(self.setting, known)}. Use one of {', '.join(f'{self.service}.{name}' for name in known)}."
            )
        if self.setting in mappings_of(own) and not self.entry:
            whole = f"{self.service}.{self.setting}"
            raise UserError(f"parameters.{parameter}.target={whole}: it is a mapping. Name one entry of it, {whole}.NAME.")


def mappings_of(settings: Any) -> tuple[str, ...]:
    """Return the names of the settings that are mappings: a parameter writes one entry of them."""
    return tuple(each.name for each in dataclasses.fields(settings) if isinstance(getattr(settings, each.name), dict))


def settings_with(config: ExperimentConfig, params: Mapping[str, Any]) -> SpaceServices:
    """Return the settings of the services with a candidate's parameters written over them. The configuration is not changed.

    Raises:
        UserError: a parameter whose target is no setting of a service.
    """
    changes: dict[str, list[tuple[Target, Any]]] = {name: [] for name, _ in config.services.items()}
    for name, value in params.items():
        target = Target.parse(config.parameters[name].target)
        target.check(name, config.services)
        changes[target.service].append((target, value))
    return replace(config.services, **{name: written_over(config.services[name], made) for name, made in changes.items()})


def written_over(settings: _SettingsT, changes: Sequence[tuple[Target, Any]]) -> _SettingsT:
    """Return a copy of one service's settings, which shares no mapping with them, with the changes made in order."""
    values: dict[str, Any] = {name: dict(getattr(settings, name)) for name in mappings_of(settings)}
    for target, value in changes:
        if target.entry is None:
            values[target.setting] = value
        else:
            values[target.setting][target.entry] = str(value) if target.setting == "env" else value
    return replace(settings, **values)  # type: ignore[type-var]  # every class of settings is a dataclass
