"""Rules of settings, and the one checker that applies them.

A field of a settings class is declared with `bounded`, `one_of`, `ruled` or `rule`. A rule that joins several settings is in the method
`conflicts` of the class that holds them all. Rules are objects, because one rule is used in many places: for a setting, for each value of a
knob, for a column of a hundred thousand candidates, for an option of a command and for an argument of `RZeroSearch`. pydantic and msgspec
are not used: they check whole objects, their messages do not give the value and the allowed words in one line, and they add 0.2 to 0.5 s
and
0.07 s to the start-up.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Protocol, get_type_hints

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds


class Rule(Protocol):
    """A rule for one value."""

    def check(self, name: str, value: Any) -> object:
        """Raise UserError if the value breaks the rule. The message names the setting, the value and what is allowed."""


@dataclass(frozen=True)
class By:
    """A rule that a function checks."""

    check: Callable[[str, Any], object]


@dataclass(frozen=True)
class NumberOr:
    """A whole number within its limits, or a word in its place."""

    bounds: Bounds
    word: str
    forms: str
    """How a number may be written, for the message."""

    def check(self, name: str, value: Any) -> None:
        """Raise UserError for another word, or for a number out of range."""
        if value == self.word:
            return
        if isinstance(value, str):
            raise UserError(f"{name}={value}: not a whole number. Set a whole number ({self.forms}), or {self.word}.")
        self.bounds.check(name, value)


@dataclass(frozen=True)
class OneOf:
    """One of a few words or numbers."""

    words: tuple[str | int, ...]

    def check(self, name: str, value: Any) -> None:
        """Raise UserError, with the nearest word, for any other value."""
        if value not in self.words:
            raise UserError(f"{name}={value}: not allowed. Set one of {', '.join(map(str, self.words))}{nearest(str(value), map(str, self.words))}.")


@dataclass(frozen=True)
class Items:
    """A list of values. null is allowed among them if `null` gives its meaning."""

    each: Rule
    null: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise UserError for the first value that is not allowed."""
        for one in value:
            if one is None and self.null:
                continue
            try:
                check_value(self.each, name, one)
            except UserError as error:
                raise UserError(f"{str(error).removesuffix('.')}, or null for {self.null}." if self.null else str(error)) from error


@dataclass(frozen=True)
class Entries:
    """A mapping: its allowed keys, and the rule for each value."""

    values: Rule
    keys: Callable[[], Iterable[str]] | None = None
    """Function that returns the allowed keys; None to allow any key."""
    kind: str = "key"
    """What a key is, for the message."""

    def check(self, name: str, value: Any) -> None:
        """Raise UserError for the first key or value that is not allowed."""
        known = None if self.keys is None else tuple(self.keys())
        for key, one in value.items():
            if known is not None and key not in known:
                raise UserError(f"{name}.{key}: no such {self.kind}{nearest(str(key), known)}. Use one of {', '.join(known)}.")
            check_value(self.values, f"{name}.{key}", one)


Reader = Callable[[Any], Any]
"""Function that parses written forms of a value, such as 32k. It returns anything else unchanged, for the checks that follow."""


def rule(wanted: Rule) -> dict[str, Any]:
    """Return the metadata of a field with a rule, for a setting with a default factory (a list or a mapping)."""
    return {"rule": wanted}


def ruled(default: Any, wanted: Rule, read: Reader | None = None) -> Any:
    """Return a field with its rule. A setting that may be null is not checked while it is null.

    Args:
        default: of the setting.
        wanted: the rule.
        read: reads the forms in which it may be written; None if there is one form only.
    """
    return field(default=default, metadata={"rule": wanted, "read": read})


def bounded(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    read: Reader | None = None,
) -> Any:
    """Return a field for a number with its limits; `read` as in `ruled`."""
    return ruled(default, Bounds(least, above, most, below), read)


def one_of(default: Any, *words: str | int) -> Any:
    """Return a field for one of a few words or numbers."""
    return ruled(default, OneOf(words))


def types_of(schema: Any) -> dict[str, Any]:
    """Return the type of each setting of a class, for reading only."""
    return _types_of(schema)


@cache
def _types_of(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)  # which evaluates the annotations anew each time that it is asked


@cache
def rule_of(schema: type, name: str) -> Rule | None:
    """Return the rule of a setting of this class, or None if it has none."""
    return next((each.metadata.get("rule") for each in fields(schema) if each.name == name), None)


def bounds_of(schema: type, name: str) -> Bounds:
    """Return the limits of a numeric setting of this class; unlimited if it declares none."""
    found = rule_of(schema, name)
    return found.bounds if isinstance(found, NumberOr) else found if isinstance(found, Bounds) else Bounds()


def check(settings: Any, prefix: str = "") -> None:
    """Check every setting by its rule, then the rules that join several settings.

    Args:
        settings: an object of a settings class.
        prefix: prefix of its keys, for example `search.`.

    Raises:
        UserError: for the first broken rule, in one line that begins with the key.
    """
    check_each(settings, prefix)
    for at, section in _sections(settings, prefix):
        for conflict in section.conflicts(at) if hasattr(section, "conflicts") else ():
            raise UserError(conflict)


def check_each(settings: Any, prefix: str = "") -> None:
    """Check every setting by its own rule. Raise UserError as `check` does."""
    for at, section in _sections(settings, prefix):
        for each in fields(section):
            check_value(each.metadata.get("rule"), at + each.name, getattr(section, each.name))


def check_value(wanted: Rule | None, name: str, value: Any) -> None:
    """Check one value; a number must also be finite. Raise UserError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: not a finite number. Set a finite number.")
    if wanted is not None and value is not None:
        wanted.check(name, value)


def _sections(settings: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield these settings and all below them, each with the prefix of its keys."""
    yield prefix, settings
    for each in fields(settings):
        value = getattr(settings, each.name)
        below = {"": value} if is_dataclass(value) else value if isinstance(value, dict) else {}
        for name, inner in below.items():
            if is_dataclass(inner):
                yield from _sections(inner, f"{prefix}{each.name}.{name}." if name else f"{prefix}{each.name}.")


def nearest(key: str, known: Iterable[str]) -> str:
    """Return " (did you mean …?)" with the nearest known key, or "" if none is similar."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
