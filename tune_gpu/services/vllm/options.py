"""Facts of every option of `vllm serve`: its syntax, what it affects, and which option a name in `extra_args` means.

`serve_options.json` is the list of vLLM's own parser; a test compares it with the parser of the installed vLLM. It is part of the package
because a space is also checked where vLLM is not installed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from tune_gpu.services.vllm.settings import VllmSettings

TABLE = Path(__file__).with_name("serve_options.json")
NO = "no-"
_NAME = re.compile(r"[A-Za-z0-9][\w-]*(\.[^\s.=]+)*")
_NUMBER = re.compile(r"-\d+")
"""The only text with a dash in front that vLLM's parser takes for a value."""
_SET_BY_EVALUATION = ("host", "port", "served-model-name", "api-key")


class Kind(StrEnum):
    """How an option takes its value."""

    SWITCH = "switch"
    """On as `--x`, off as `--no-x`."""
    ON = "on"
    """On as `--x`; off by leaving it out."""
    VALUE = "value"
    OPTIONAL = "optional"
    """With a value, or alone."""
    VALUES = "values"
    """Several words after one flag."""
    APPEND = "append"
    """Once for each value."""


class Role(StrEnum):
    """What an option affects beyond the engine's own speed and memory."""

    PLAIN = "plain"
    """A number, a switch or one of a few words: all that somebody else's space may set (`trust`)."""
    ANSWERS = "answers"
    """Changes who may ask, what a request may bring, or what answers and logs reveal."""
    SERVER = "server"
    """Where, how or whether the server answers: refused in a space."""
    CODE = "code"
    """Names code that is imported, runs another program, or lets a request bring code."""
    FILES = "files"
    """Names a file, a folder or another model."""
    NETWORK = "network"
    """Names another machine, or chooses what is fetched from one."""
    STRUCTURE = "structure"
    """JSON of many entries, which may do any of these."""


@dataclass(frozen=True)
class Option:
    """One option of `vllm serve`."""

    name: str
    """Its long name, without dashes in front."""
    kind: Kind
    also: tuple[str, ...]
    """Its other names, with their dashes."""
    role: Role


@dataclass(frozen=True)
class Spelling:
    """The meaning of one name in `extra_args`."""

    given: str
    option: str
    """The long name, with dashes inside."""
    path: tuple[str, ...] = ()
    """The keys below dots: part of a structure."""
    off: bool = False
    """It is the `no-` form of a switch."""
    adds: bool = False
    """The last key ends in `+`: its value is added to a list."""
    known: Option | None = None
    problem: str | None = None
    """Why it cannot be used; null if it can."""

    @property
    def target(self) -> tuple[str, ...]:
        """Return a key that is equal for two spellings of the same setting."""
        return (self.option, *self.path)


@cache
def options() -> dict[str, Option]:
    """Return all options by their long names."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Option(name, Kind(row["kind"]), tuple(row["also"]), Role(row["role"])) for name, row in rows.items()}


@cache
def own_options() -> frozenset[str]:
    """Return the options that `VllmSettings` has a setting for. Its other settings are not vLLM's."""
    return frozenset(name for each in fields(VllmSettings) if (name := each.name.replace("_", "-")) in options())


@cache
def _long_names() -> dict[str, tuple[str, bool]]:
    """Return every long spelling without leading dashes: its option, and whether it is the `no-` form."""
    found: dict[str, tuple[str, bool]] = {}
    for option in options().values():
        longs = [option.name, *(name[2:] for name in option.also if name.startswith("--"))]
        found |= dict.fromkeys(longs, (option.name, False))
        if option.kind is Kind.SWITCH:
            found |= {NO + name: (option.name, True) for name in longs}
    return found


@cache
def read_name(given: str) -> Spelling:
    """Return the option that vLLM's parser finds for a name in `extra_args`."""
    if not _NAME.fullmatch(given):
        return Spelling(given, given, problem="not the long name of a flag. Write it without dashes in front.")
    head, *below = given.split(".")
    name, adds = head.replace("_", "-"), bool(below) and below[-1].endswith("+")
    path = tuple(key.removesuffix("+") for key in below) if adds else tuple(below)
    if name in _long_names():
        option, off = _long_names()[name]
        known = options()[option]
        problem = "a switch has nothing below it. Set it to true or false." if path and known.kind in (Kind.SWITCH, Kind.ON) else None
        return Spelling(given, option, path, off, adds, known, problem)
    for known in options().values():
        if f"-{name}" in known.also:
            return Spelling(given, known.name, path, known=known, problem=f"the short form of a flag. Write {known.name}.")
    began = {option for long, (option, _) in _long_names().items() if long.startswith(name)}
    if not began:  # of another version of vLLM, or none of its flags: its parser is asked
        return Spelling(given, name, path, adds=adds)
    if len(began) > 1:
        return Spelling(given, name, path, problem=f"the beginning of several flags ({', '.join(sorted(began)[:3])} …). Write one of them in full.")
    (option,) = began
    return Spelling(given, option, path, known=options()[option], problem=f"the beginning of a flag, which vLLM reads as the flag. Write {option}.")


def problem_of(given: str, value: Any) -> str | None:
    """Return why this entry of `extra_args` is refused, or None."""
    spelling = read_name(given)
    if spelling.option in own_options():
        return f"it would replace the setting vllm.{(own := spelling.option.replace('-', '_'))}. Set vllm.{own} instead."
    return _problem_of_role(spelling, value) or spelling.problem or _problem_of_value(spelling, value)


def _problem_of_role(spelling: Spelling, value: Any) -> str | None:
    known = spelling.known
    if known is None or known.role is not Role.SERVER:
        return None
    if known.kind in (Kind.SWITCH, Kind.ON) and value is False and not spelling.off:
        return None  # the same as without the flag
    if known.name in _SET_BY_EVALUATION:
        return "every evaluation sets it itself. Remove it; set where a promoted server listens under promote."
    if known.name == "config":
        return "a second file would be measured and not deployed. Write its flags into services.vllm.extra_args."
    return "it changes where, how or whether the server answers, so it cannot be measured. Remove it."


def _problem_of_value(spelling: Spelling, value: Any) -> str | None:
    kind = spelling.known.kind if spelling.known and not spelling.path else None
    if value is None:
        return None
    if spelling.off and value is not True:
        return f"the off form of a switch takes only true. To switch it on set {spelling.option}: true."
    if kind in (Kind.SWITCH, Kind.ON) and not isinstance(value, bool):
        return "a switch. Set true or false."
    if kind in (Kind.VALUE, Kind.VALUES, Kind.APPEND) and isinstance(value, bool):
        return "not a switch. Set a value other than true and false."
    if kind is Kind.APPEND and isinstance(value, list) and len(value) > 1:
        return "a deployed file of flags cannot hold a flag twice. Set one value."
    if spelling.path:
        return None  # written as JSON
    for item in value if isinstance(value, list) else [value]:
        text = item if isinstance(item, str) else json.dumps(item)
        if "\0" in text:
            return "a value cannot hold the character NUL. Remove it."
        if text.startswith("-") and not _NUMBER.fullmatch(text):
            return f"vLLM's parser takes {text!r} for a flag, not for a value. Set a value that does not begin with a dash."
    return None
