"""Read a JSON object into a frozen dataclass and write it back with the same keys and values.

The types of the fields are the rules. A field without a default is required. An unknown field is kept and written back; a field that was
absent stays absent until it is set.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

from tune_gpu.common.errors import UserError

SCHEMA_VERSION = 1
"""The version that new artifacts state. An artifact that states none has version 1."""
_OWN = ("unknown", "absent")
OPTIONAL = {"optional": True}
"""The metadata of a field that new artifacts omit while it has its default."""


class _Wrong(Exception):
    """A value has the wrong type. The arguments are the path of the key, outermost first, and the value (`MISSING` if it is absent)."""

    def __init__(self, path: tuple[str, ...], value: Any) -> None:
        super().__init__(path, value)
        self.path, self.value = path, value


class _Codec(NamedTuple):
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


class _Field(NamedTuple):
    name: str
    codec: _Codec
    default: Any
    """`MISSING` if the field is required."""
    optional: bool


@dataclass(frozen=True, kw_only=True)
class Record:
    """The base of all records. Subclasses are keyword-only frozen dataclasses; their fields are the keys of the JSON object, in order."""

    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields that this program does not know, from a newer or another program."""
    absent: frozenset[str] | None = field(default=None, compare=False, repr=False)
    """Fields that the file did not have; None for a record that was not read from one."""

    @classmethod
    def parse(cls, content: Any, where: object) -> Self:
        """Read a JSON object.

        Args:
            content: the parsed JSON.
            where: what errors name: a file, or a line of a file.

        Raises:
            UserError: a required field is missing, a value has another type, or the schema version is newer.
        """
        if not isinstance(content, Mapping):
            raise UserError(f"{where}: not written by this program (a JSON {type(content).__name__}, not an object)")
        version = content.get("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise UserError(f"{where}: schema_version={version}: this program reads up to {SCHEMA_VERSION}. Use the program that wrote it, or a newer one.")
        try:
            found = cls._read(content)
        except _Wrong as wrong:
            key = ".".join(wrong.path)
            state = "is missing" if wrong.value is MISSING else f"is {json.dumps(wrong.value, default=repr)[:60]}"
            raise UserError(f"{where}: not written by this program (`{key}` {state})") from None
        if problem := found.contradiction():
            raise UserError(f"{where}: not written by this program ({problem})")
        return found

    def dump(self) -> dict[str, Any]:
        """Return the JSON object."""
        declared = _fields(type(self))
        absent = frozenset(each.name for each in declared if each.optional) if self.absent is None else self.absent
        content: dict[str, Any] = {}
        for each in declared:
            value = getattr(self, each.name)
            if each.name not in absent or value != _default(each):
                content[each.name] = each.codec.write(value)
        return content | dict(self.unknown)

    def contradiction(self) -> str | None:
        """Return which fields contradict one another, or None."""
        return None

    @classmethod
    def _read(cls, content: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {}
        absent = []
        declared = _fields(cls)
        for each in declared:
            if each.name in content:
                try:
                    values[each.name] = each.codec.read(content[each.name])
                except _Wrong as wrong:
                    raise _Wrong((each.name, *wrong.path), wrong.value) from None
            elif each.default is MISSING:
                raise _Wrong((each.name,), MISSING)
            else:
                absent.append(each.name)
        known = {each.name for each in declared}
        return cls(**values, unknown={key: value for key, value in content.items() if key not in known}, absent=frozenset(absent))


def _default(each: _Field) -> Any:
    return each.default() if callable(each.default) else each.default


_KNOWN: dict[type[Any], tuple[_Field, ...]] = {}


def _fields(kind: type[Any]) -> tuple[_Field, ...]:
    if kind not in _KNOWN:
        _KNOWN[kind] = tuple(_fields_of(kind))
    return _KNOWN[kind]


def _fields_of(kind: type[Any]) -> Iterator[_Field]:
    hints = get_type_hints(kind)
    for each in fields(kind):
        if each.name not in _OWN:
            default = each.default if each.default is not MISSING else each.default_factory
            yield _Field(each.name, _codec(hints[each.name]), default, "optional" in each.metadata)


def _codec(hint: Any) -> _Codec:
    """Return how values of a type are read and written. Raise TypeError for a type that records do not use."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _Codec(_same, _same)
    if origin in (Union, types.UnionType):
        (inner,) = (_codec(each) for each in arguments if each is not type(None))
        return _Codec(lambda value: None if value is None else inner.read(value), lambda value: None if value is None else inner.write(value))
    if origin is tuple:
        items = _codec(arguments[0])
        return _Codec(lambda value: tuple(_read_items(value, items)), lambda value: [items.write(each) for each in value])
    if origin is dict:
        values = _codec(arguments[1])
        if arguments[1] is Any:
            return _Codec(_of_type(dict), _same)
        return _Codec(lambda value: _read_values(value, values), lambda value: {key: values.write(each) for key, each in value.items()})
    if isinstance(hint, type) and issubclass(hint, Record):
        return _Codec(lambda value: hint._read(_of_type(dict)(value)), lambda value: value.dump())
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Codec(lambda value: _member(hint, value), lambda value: value.value)
    if hint in (str, bool, int, float):
        return _Codec(_of_type(hint), _same)
    raise TypeError(f"{hint}: records have no fields of this type")


def _same(value: Any) -> Any:
    return value


def _of_type(kind: type) -> Callable[[Any], Any]:
    kinds = (int, float) if kind is float else (kind,)

    def read(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise _Wrong((), value)
        return value

    return read


def _member(kind: type[Enum], value: Any) -> Enum:
    try:
        return kind(value)
    except ValueError:
        raise _Wrong((), value) from None


def _read_items(value: Any, items: _Codec) -> list[Any]:
    return [items.read(each) for each in _of_type(list)(value)]


def _read_values(value: Any, values: _Codec) -> dict[str, Any]:
    found = {}
    for key, each in _of_type(dict)(value).items():
        try:
            found[key] = values.read(each)
        except _Wrong as wrong:
            raise _Wrong((str(key), *wrong.path), wrong.value) from None
    return found
