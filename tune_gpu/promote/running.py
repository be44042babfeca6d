"""Compare a running service with the measured settings: each setting of a deployed file with every source that reports its value.

A source that does not report a setting proves nothing about it: such a setting is "not readable", neither equal nor different.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from tune_gpu.artifacts.redaction import is_secret
from tune_gpu.services.vllm.numbers import with_suffix
from tune_gpu.services.vllm.options import Kind, own_options, read_name

_ENGINE_DECIDES = ("auto", "-1", "None")
"""Values that vLLM reports for "auto"."""
_LONGEST = 120


class Unread(Enum):
    """The value of a setting that a source does not report."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD


class Choice(NamedTuple):
    """A member of an enumeration of vLLM. Both its name and its value can be written."""

    name: str
    value: Any


class Rewritten(dict[str, Any]):
    """A structure whose entries are not all reported as they were given."""


@dataclass(frozen=True)
class Setting:
    """One setting as it was measured."""

    option: str
    """The option's long name, with dashes inside."""
    path: tuple[str, ...]
    """The keys below the option."""
    value: Any
    """UNREAD if it is unknown how vLLM rewrites it."""

    @property
    def name(self) -> str:
        """Return the setting's name for people."""
        return ".".join((self.option.replace("-", "_"), *self.path))


@dataclass(frozen=True)
class Reading:
    """The settings that one source reports of a running service."""

    source: str
    values: Mapping[str, Any]
    """Option -> value."""
    defaults: Mapping[str, Any] | None = None
    """Values of options that the source leaves out; None if a missing option has no meaning."""
    lists_changes: bool = False
    """Whether `values` has every option that differs from vLLM's default."""

    def value_of(self, setting: Setting) -> Any:
        """Return the reported value of a setting, or UNREAD."""
        value = self.values.get(setting.option, (self.defaults or {}).get(setting.option, UNREAD))
        rewritten = False
        for key in setting.path:
            if not isinstance(value, dict):
                return value
            rewritten |= isinstance(value, Rewritten)
            value = value.get(key, UNREAD if rewritten else None)
        # vLLM completes lists and names in its own structures, but reports numbers and switches as they were given.
        return UNREAD if rewritten and isinstance(setting.value, (str, list)) and not same(setting.value, value) else value


@dataclass(frozen=True)
class SettingsComparison:
    """The outcome of a comparison."""

    differences: tuple[str, ...]
    """Each difference, as text."""
    unread: tuple[str, ...]
    """Settings that no source reports."""
    sources: tuple[str, ...]
    """Sources that reported at least one setting."""


def vllm_settings(content: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of a file for `vllm serve --config`."""
    found = []
    for name, value in content.items():
        spelling = read_name(name)
        measured = (not value if spelling.off else value) if isinstance(value, bool) else parsed(value)
        if spelling.path and isinstance(value, str):  # below a dot every value is JSON
            measured = json.loads(value)
        if spelling.option == "max-model-len" and str(value) == "-1":
            measured = "auto"
        if spelling.adds or (value is True and spelling.known and spelling.known.kind is Kind.OPTIONAL):
            measured = UNREAD  # vLLM rewrites it
        found += _leaves(spelling.option, spelling.path, measured)
    return found


def _leaves(option: str, path: tuple[str, ...], value: Any) -> list[Setting]:
    """Return the entries of a structure one by one, because a source may report only some."""
    if isinstance(value, dict) and value:
        return [leaf for key, below in value.items() for leaf in _leaves(option, (*path, str(key)), below)]
    return [Setting(option, path, value)]


def plain_settings(content: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of our Whisper server's file."""
    return [Setting(name.replace("_", "-"), (), value) for name, value in content.items()]


def compare_settings(service: str, settings: Sequence[Setting], readings: Sequence[Reading]) -> SettingsComparison:
    """Compare every setting with every source that reports it.

    Args:
        service: for the messages.
        settings: as measured.
        readings: readings of the running service, the most reliable first.
    """
    differences, unread, sources = [], [], dict.fromkeys(reading.source for reading in readings)
    reported: set[str] = set()
    for setting in settings:
        read = False
        for reading in readings if setting.value is not UNREAD else ():
            value = reading.value_of(setting)
            if value is UNREAD:
                continue
            read = True
            reported.add(reading.source)
            if not same(setting.value, value):
                differences.append(_difference(service, setting.name, value, setting.value, reading.source))
                break
        if not read:
            unread.append(setting.name)
    differences += _changed(service, settings, readings)
    return SettingsComparison(tuple(differences), tuple(unread), tuple(source for source in sources if source in reported))


def _changed(service: str, settings: Sequence[Setting], readings: Sequence[Reading]) -> list[str]:
    """Return differences of options that were measured at vLLM's default but run with another value."""
    measured = {setting.option for setting in settings}
    return [
        f"{service} runs with {option.replace('-', '_')}={_shown(reading.values[option])}, measured without it ({reading.source})"
        for reading in readings
        if reading.lists_changes
        for option in sorted((own_options() & reading.values.keys()) - measured)
        if reading.values[option] is not UNREAD
    ]


def environment_differences(service: str, measured: Mapping[str, str], runs: Mapping[str, str]) -> list[str]:
    """Return the variables of a deployed env file that have another value in the process's environment. A secret's value is not shown."""
    found = []
    for name, value in measured.items():
        if runs.get(name) != value:
            found.append(_difference(service, name, runs.get(name), value, "environment"))
    return found


def same(measured: Any, runs: Any) -> bool:
    """Return whether two values mean the same to vLLM."""
    if measured == "auto":
        return str(runs) in _ENGINE_DECIDES
    if isinstance(runs, Choice):
        return str(measured).lower() == runs.name.lower() or same(measured, runs.value)
    if isinstance(measured, dict) or isinstance(runs, dict):
        return bool(measured == parsed(runs))
    if isinstance(measured, list):
        runs = parsed(runs)
        runs = runs if isinstance(runs, (list, tuple)) else [runs]
        return len(runs) == len(measured) and all(map(same, measured, runs))
    if isinstance(runs, (list, tuple)):
        return len(runs) == 1 and same(measured, runs[0])
    if isinstance(measured, bool) or isinstance(runs, bool):
        return str(measured).lower() == str(runs).lower()
    numbers = _number(measured), _number(runs)
    return numbers[0] == numbers[1] if None not in numbers else str(measured) == str(runs)


def _number(value: Any) -> float | None:
    if (found := with_suffix(str(value))) is not None:
        return float(found)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def parsed(value: Any) -> Any:
    """Parse a structure that a file or a command line has as JSON. Return anything else unchanged."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _difference(service: str, name: str, runs: Any, measured: Any, source: str) -> str:
    if is_secret(name):
        return f"{service} runs with another {name} than measured ({source})"
    return f"{service} runs with {name}={_shown(runs)}, measured with {_shown(measured)} ({source})"


def _shown(value: Any) -> str:
    text = "unset" if value is None else value.name if isinstance(value, Choice) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
