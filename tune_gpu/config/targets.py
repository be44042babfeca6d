"""Where a parameter's value goes: one setting of one service, or one entry of its `extra_args` or `env`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, Services, VllmSettings, WhisperSettings

MAPPINGS = ("extra_args", "env")
"""Settings that are mappings: a parameter writes one entry of them."""
_SettingsT = TypeVar("_SettingsT", VllmSettings, WhisperSettings)


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
        mapping, dot, entry = setting.partition(".")
        return cls(service, mapping, entry) if dot and mapping in MAPPINGS else cls(service, setting)

    def __str__(self) -> str:
        return ".".join(part for part in (self.service, self.setting or None, self.entry) if part is not None)

    def check(self, parameter: str) -> None:
        """Raise UserError if no service has this setting, or if it is a mapping and no entry is named."""
        known = {service.name: _settings_of(service.default_factory) for service in dataclasses.fields(Services)}
        if self.setting not in known.get(self.service, ()):
            allowed = ", ".join(f"{service}.{setting}" for service, settings in known.items() for setting in settings)
            raise UserError(f"parameters.{parameter}.target={self}: no such setting. Use one of {allowed}.")
        if self.setting in MAPPINGS and not self.entry:
            whole = f"{self.service}.{self.setting}"
            raise UserError(f"parameters.{parameter}.target={whole}: it is a mapping. Name one entry of it, {whole}.NAME.")


def _settings_of(kind: Any) -> list[str]:
    return [setting.name for setting in dataclasses.fields(kind)]


def settings_with(config: ExperimentConfig, params: Mapping[str, Any]) -> Services:
    """Return the settings of the services with a candidate's parameters written over them. The configuration is not changed.

    Raises:
        UserError: a parameter whose target is no setting of a service.
    """
    changes: dict[str, list[tuple[Target, Any]]] = {}
    for name, value in params.items():
        target = Target.parse(config.parameters[name].target)
        target.check(name)
        changes.setdefault(target.service, []).append((target, value))
    services = config.services
    return Services(vllm=written_over(services.vllm, changes.get("vllm", [])), whisper=written_over(services.whisper, changes.get("whisper", [])))


def written_over(settings: _SettingsT, changes: Sequence[tuple[Target, Any]]) -> _SettingsT:
    """Return a copy of one service's settings, which shares no mapping with them, with the changes made in order."""
    values: dict[str, Any] = {name: dict(getattr(settings, name)) for name in MAPPINGS if hasattr(settings, name)}
    for target, value in changes:
        if target.entry is None:
            values[target.setting] = value
        else:
            values[target.setting][target.entry] = str(value) if target.setting == "env" else value
    return replace(settings, **values)
