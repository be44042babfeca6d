"""Decide what a configuration that is not the user's own may set without `--trust`: nothing that could run code or reach files.

This is an allow-list. Numbers and switches are harmless except for the permissions listed here. Text is harmless only if it is listed here
or `foreign_services.py` allows it. Whatever the user types as KEY=VALUE is the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from tune_gpu.common.errors import UserError
from tune_gpu.config.foreign_services import entry_needs_trust, setting_needs_trust
from tune_gpu.config.kinds import load_kind
from tune_gpu.config.schema import ExperimentConfig, ParameterSpec
from tune_gpu.config.service_settings import SpaceServices
from tune_gpu.config.session_settings import BUILT_IN
from tune_gpu.config.space_services import kinds_of
from tune_gpu.config.targets import Target

HARMLESS = frozenset({
    "name", "description", "device", "baseline", "objective.weights", "objective.targets", "objective.limits", "search.algorithm", "search.objectives", "confirm.metric", "confirm.tolerances",
    "workload.audio.source", "workload.audio.language", "workload.audio.noise_snr_db", "workload.kind", "workload.turn", "workload.background", "workload.voice", "run.port_range",
    "workload.arrivals.process", "workload.history", "workload.llm_hears", "workload.half",
    *(f"workload.profiles.*.{name}" for name in (
        "format", "turns", "answer_tokens", "think_s", "system_prompt.text", "system_prompt.shared_by", "system_prompt.volatile", "tool_calls.result_tokens",
        "tool_calls.latency_s", "retrieval.chunk_tokens",
    )),
    *(f"workload.auxiliary.*.{name}" for name in ("service", "prompt", "prompt_tokens", "answer_tokens")),
})  # fmt: skip
"""Text, lists and mappings that are one of a few words, numbers, or names of data; each is checked where it is used."""
PERMISSIONS = {"run.mps": "it is a permission to start a daemon on this machine"}
"""Switches that are more than a setting of the experiment."""
_SENT = "it names a file, which would be sent to the services"
_NAMED = (("workload", "profiles"), ("workload", "auxiliary"))
"""Mappings from a name to settings."""
_WHY = {
    "workload.arrivals.file": "it names a file of this machine",
    **{f"workload.profiles.*.{name}": _SENT for name in ("source", "system_prompt.file", "system_prompt.tools")},
    "ray.address": "the cluster there sends objects that run code here",
    "ray.storage_path": "results would be copied there",
    "run.artifacts_dir": "it leads out of the folder where the command is run",
}
_ARTIFACTS = re.compile(r"(?!.*(^|/)\.\.(/|$))[^/~].*", re.DOTALL)

KeyPath = tuple[str, ...]


@runtime_checkable
class JudgesTrust(Protocol):
    """Settings of a kind that says itself which of them need the user's trust."""

    def needs_trust(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each setting that needs trust, and why."""


@runtime_checkable
class JudgesValues(Protocol):
    """A kind that has flags or variables of its own, and says which of them need the user's trust."""

    def needs_trust(self, setting: str, entry: str | None, value: Any) -> str | None:
        """Return why a value of a setting, or of one entry of a mapping, needs trust, or None."""


Judge = Callable[[str, str | None, Any], str | None]
"""`JudgesValues.needs_trust`."""


@dataclass(frozen=True)
class NeedsTrust:
    """A key, and the reason why its value needs the user's trust."""

    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


def refuse(path: Path, wanted: list[NeedsTrust]) -> NoReturn:
    """Raise UserError that names the first key."""
    more = f", and {len(wanted) - 1} more" if len(wanted) > 1 else ""
    raise UserError(
        f"{wanted[0]}{more}. {path} is not known to be yours: remove the key there, give it as KEY=VALUE, or read the whole file and give --trust, "
        "which allows all that it sets."
    )


def needs_trust(config: ExperimentConfig, typed: Mapping[str, Any]) -> list[NeedsTrust]:
    """Return the settings of a configuration that need the user's trust.

    Args:
        config: with the overrides applied.
        typed: the user's own overrides; a value that they set as a whole needs no trust.
    """
    return [NeedsTrust(".".join(path), why) for path, value, why in _found(config) if not _is_typed(typed, path, value)]


def _found(config: ExperimentConfig) -> Iterator[tuple[KeyPath, Any, str]]:
    judges = {name: _judge_of(kind) for name, kind in kinds_of(config.services)}
    for path, value, default in _leaves(config, ExperimentConfig(), ()):
        if value != default and (why := _leaf_needs_trust(_key(path), value)):
            yield path, value, why
    for key, value in config.ray.runtime_env.items():
        if key == "env_vars" and isinstance(value, dict):
            yield from _variables(judges.values(), value)
        else:
            yield ("ray", "runtime_env", str(key)), value, "Ray fetches or runs what it names"
    for name, settings in config.services.items():
        yield from _of_service(("services", name), settings, judges[name])
    for name, spec in config.parameters.items():
        if why := _parameter_needs_trust(spec, config.services, judges):
            yield ("parameters", name), spec, f"{spec.target}: {why}"


def _judge_of(kind: str) -> Judge:
    own = load_kind(kind)
    return own.needs_trust if isinstance(own, JudgesValues) else _usual


def _usual(setting: str, entry: str | None, value: Any) -> str | None:
    return setting_needs_trust(setting, value) if entry is None else entry_needs_trust(setting, entry, value)


def _of_service(path: KeyPath, settings: Any, judge: Judge) -> Iterator[tuple[KeyPath, Any, str]]:
    """Yield the settings of one service that need trust. A kind whose settings can run code says itself which do."""
    if isinstance(settings, JudgesTrust):
        for name, why in settings.needs_trust():
            yield (*path, name), getattr(settings, name), why
        return
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, dict):
            for name, given in value.items():
                if reason := judge(each.name, str(name), given):
                    yield (*path, each.name, str(name)), given, reason
        elif reason := judge(each.name, None, value):
            yield (*path, each.name), value, reason


def _leaves(value: Any, default: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yield every setting except those of services, parameters and Ray's environment, which have checks of their own.

    `promote` takes its settings from neither a space nor a run (`promote/settings.py`).
    """
    if path in (("services",), ("parameters",), ("ray", "runtime_env"), ("promote",)):
        return
    if path in _NAMED:
        for name, entry in value.items():
            yield from _leaves(entry, type(entry)(), (*path, str(name)))
        return
    if not is_dataclass(value):
        yield path, value, default
        return
    for each in fields(value):
        yield from _leaves(getattr(value, each.name), getattr(default, each.name), (*path, each.name))


def _key(path: KeyPath) -> str:
    """Return the key of a setting as the lists above have it: `*` for a name of the user's choice."""
    return ".".join("*" if path[:at] in _NAMED else name for at, name in enumerate(path))


def _leaf_needs_trust(key: str, value: Any) -> str | None:
    if key in PERMISSIONS:
        return PERMISSIONS[key]
    if value is None or isinstance(value, (bool, int, float)) or key in HARMLESS:
        return None
    if key == "run.artifacts_dir" and isinstance(value, str) and _ARTIFACTS.fullmatch(value):
        return None
    if key == "workload.profiles.*.source" and value in BUILT_IN:
        return None
    return _WHY.get(key, "it is not known to be harmless")


def _variables(judges: Collection[Judge], given: Mapping[Any, Any]) -> Iterator[tuple[KeyPath, Any, str]]:
    """Yield the variables of Ray's environment that need trust: all that none of the services may have."""
    for name, value in given.items():
        reasons = [judge("env", str(name), value) for judge in (_usual, *judges)]
        if None not in reasons:
            yield ("ray", "runtime_env", "env_vars", str(name)), value, str(reasons[0])


def _parameter_needs_trust(spec: ParameterSpec, services: SpaceServices, judges: Mapping[str, Judge]) -> str | None:
    target = Target.parse(spec.target)
    if target.service in services and isinstance(services[target.service], JudgesTrust):
        return "it becomes part of what is run"
    judge = judges.get(target.service, _usual)
    for value in (spec.low,) if spec.values is None else spec.values:  # a range is of numbers
        if why := judge(target.setting, target.entry, value):
            return why
    return None


def _is_typed(typed: Mapping[str, Any], path: KeyPath, value: Any) -> bool:
    """Return True if an override sets the whole value. For a parameter it must set the target and the values."""
    given: Any = typed
    for key in path:
        if not isinstance(given, Mapping) or key not in given:
            return False
        given = given[key]
    if isinstance(value, ParameterSpec):
        return isinstance(given, Mapping) and all(given.get(key) == getattr(value, key) for key in ("target", "values", "low", "high"))
    return bool(given == value) or (isinstance(value, str) and not isinstance(given, (dict, list)) and str(given) == value)
