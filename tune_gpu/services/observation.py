"""Compare a running service with the measured settings: each setting of a deployed file with every source that reports its value.

A source that does not report a setting proves nothing about it: such a setting is "not readable", neither equal nor different. A kind whose
services report what they run with is a `ReportsSettings`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from tune_gpu.artifacts.secret_names import is_secret

_Result = TypeVar("_Result")
_PROGRAM_DECIDES = ("auto", "-1", "None")
"""Values that a program reports for "auto"."""
_LONGEST = 120


class Unread(Enum):
    """The value of a setting that a source does not report."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD


class Choice(NamedTuple):
    """A member of an enumeration of a program. Both its name and its value can be written."""

    name: str
    value: Any


class Rewritten(dict[str, Any]):
    """A structure whose entries are not all reported as they were given."""


def as_written(value: Any) -> Any:
    """Return the value unchanged: it has one written form."""
    return value


@dataclass(frozen=True)
class Setting:
    """One setting as it was measured."""

    option: str
    """The option's long name, with dashes inside."""
    path: tuple[str, ...]
    """The keys below the option."""
    value: Any
    """UNREAD if it is unknown how the program rewrites it."""
    read: Callable[[Any], Any] = field(default=as_written, compare=False)
    """Reads the written forms of a value, such as 32k; it returns anything else unchanged."""

    @property
    def name(self) -> str:
        """Return the setting's name for people."""
        return ".".join((self.option.replace("-", "_"), *self.path))

    def is_same(self, value: Any) -> bool:
        """Return whether a reported value means the same to the program."""
        return same(self.value, value, self.read)


@dataclass(frozen=True)
class Reading:
    """The settings that one source reports of a running service."""

    source: str
    values: Mapping[str, Any]
    """Option -> value."""
    defaults: Mapping[str, Any] | None = None
    """Values of options that the source leaves out; None if a missing option has no meaning."""
    changed: Collection[str] = ()
    """Options of `values` that differ from the program's own default, if the source lists them all."""

    def value_of(self, setting: Setting) -> Any:
        """Return the reported value of a setting, or UNREAD."""
        value = self.values.get(setting.option, (self.defaults or {}).get(setting.option, UNREAD))
        rewritten = False
        for key in setting.path:
            if not isinstance(value, dict):
                return value
            rewritten |= isinstance(value, Rewritten)
            value = value.get(key, UNREAD if rewritten else None)
        # A program completes lists and names in its own structures, but reports numbers and switches as they were given.
        return UNREAD if rewritten and isinstance(setting.value, (str, list)) and not setting.is_same(value) else value


@dataclass(frozen=True)
class Observed:
    """What was measured, and what the running service reports."""

    settings: Sequence[Setting]
    readings: Sequence[Reading]
    """The most reliable first, without sources that do not answer."""


class Asked(Protocol):
    """A running service that can be asked."""

    @property
    def argv(self) -> Sequence[str] | None:
        """Return the command line of the process that answers, or None if it is not known."""

    def log(self) -> str:
        """Return what it has printed since its start; nothing if the log is not kept here."""

    def page(self, path: str) -> str:
        """Return the body of its answer at this path. Raise an exception unless it answers with success."""


@runtime_checkable
class ReportsSettings(Protocol):
    """A kind whose services report what they run with. A service of another kind is compared by its command line and environment alone."""

    def observed(self, config: Mapping[str, Any], service: Asked) -> Observed:
        """Return the settings of its deployed configuration as its program reads them, and what the running service reports."""

    def other(self, config: Mapping[str, Any], device: str, page: Callable[[str], str]) -> str | None:
        """Return what answers in place of the deployed service (`serves a, not b`), or None if it is the deployed one.

        Args:
            config: as it was deployed.
            device: `cuda` or `cpu`.
            page: returns the body of its answer at a path.
        """


@dataclass(frozen=True)
class SettingsComparison:
    """The outcome of a comparison."""

    differences: tuple[str, ...]
    """Each difference, as text."""
    unread: tuple[str, ...]
    """Settings that no source reports."""
    sources: tuple[str, ...]
    """Sources that reported at least one setting."""


def tried(read: Callable[[], _Result]) -> _Result | None:
    """Return the reading, or None if the source fails. A failed source proves nothing."""
    try:
        return read()
    except Exception:
        return None


def answered(*read: Callable[[], Reading | None]) -> list[Reading]:
    """Return the readings of all sources that answer."""
    return [reading for each in read if (reading := tried(each)) is not None]


def plain_settings(content: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of a file of names and values."""
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
            if not setting.is_same(value):
                differences.append(_difference(service, setting.name, value, setting.value, reading.source))
                break
        if not read:
            unread.append(setting.name)
    differences += _changed(service, settings, readings)
    return SettingsComparison(tuple(differences), tuple(unread), tuple(source for source in sources if source in reported))


def _changed(service: str, settings: Sequence[Setting], readings: Sequence[Reading]) -> list[str]:
    """Return differences of options that were measured at the program's default but run with another value."""
    measured = {setting.option for setting in settings}
    return [
        f"{service} runs with {option.replace('-', '_')}={_shown(reading.values[option])}, measured without it ({reading.source})"
        for reading in readings
        for option in sorted(set(reading.changed) - measured)
        if reading.values[option] is not UNREAD
    ]


def environment_differences(service: str, measured: Mapping[str, str], runs: Mapping[str, str]) -> list[str]:
    """Return the variables of a deployed env file that have another value in the process's environment. A secret's value is not shown."""
    found = []
    for name, value in measured.items():
        if runs.get(name) != value:
            found.append(_difference(service, name, runs.get(name), value, "environment"))
    return found


def same(measured: Any, runs: Any, read: Callable[[Any], Any] = as_written) -> bool:
    """Return whether two values mean the same to a program that reads its written values by `read`."""
    if measured == "auto":
        return str(runs) in _PROGRAM_DECIDES
    if isinstance(runs, Choice):
        return str(measured).lower() == runs.name.lower() or same(measured, runs.value, read)
    if isinstance(measured, dict) or isinstance(runs, dict):
        return bool(measured == parsed(runs))
    if isinstance(measured, list):
        runs = parsed(runs)
        runs = runs if isinstance(runs, (list, tuple)) else [runs]
        return len(runs) == len(measured) and all(same(one, other, read) for one, other in zip(measured, runs, strict=True))
    if isinstance(runs, (list, tuple)):
        return len(runs) == 1 and same(measured, runs[0], read)
    if isinstance(measured, bool) or isinstance(runs, bool):
        return str(measured).lower() == str(runs).lower()
    numbers = _number(read(measured)), _number(read(runs))
    return numbers[0] == numbers[1] if None not in numbers else str(measured) == str(runs)


def _number(value: Any) -> float | None:
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
