"""Read every file that may come from somebody else: a model's folder, a search space, a run's folder.

Such a file may be a pipe or a device that never ends, sparse, or made to be expensive. Nothing here blocks, and the work is linear in a
size that is limited for each kind of file. Each refusal is one line that names the file and what to do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from tune_gpu.common.errors import UserError

DEEPEST = 64
"""Deepest nesting of JSON or YAML. Real files have fewer than ten levels."""
_MOST_NODES = 100_000
"""Most values in a YAML file, with its aliases written out."""
_LONGEST_NUMBER = 100
"""Longest number in YAML, in characters. A longer one is no size, and takes quadratic time to read. For JSON, Python has a limit of its
own."""


@dataclass(frozen=True)
class Limit:
    """Limits for one kind of file, and the words of its errors."""

    what: str
    largest: int
    """Bytes."""
    remedy: str
    malformed: str = "not a whole JSON file"
    longest_line: int = 2**20


_RESTORE = "Restore the run's folder, or start a new run."
MODEL = Limit("a model's config.json", 16 * 2**20, "Download the model again.")
INDEX = Limit("an index of safetensors", 64 * 2**20, "Download the model again.")
HEADER = Limit("a safetensors header", 32 * 2**20, "Download the file again.")
GGUF = Limit("a GGUF header", 128 * 2**20, "Download the file again.")
SPACE = Limit("a search space", 2**18, "Give a YAML file of a search space.", "not valid YAML")
SETTINGS = Limit("a file of settings", 2**18, "Give a YAML file of settings.", "not valid YAML")
RUN_CONFIG = Limit("a run's configuration", 2**18, _RESTORE, "not a run's configuration")
RUN_FILE = Limit("a run's file", 64 * 2**20, _RESTORE)
RUN_LINES = Limit("a run's lines", 256 * 2**20, _RESTORE, "not a candidate's line")
SAMPLES = Limit("a comparison's samples", 256 * 2**20, "Move it away, and compare again.", "not a comparison's line", longest_line=64 * 2**20)
CHECKPOINT = Limit("a checkpoint of a search", 64 * 2**20, _RESTORE, "not a complete checkpoint of an RZeroSearch")
TUNE_STATE = Limit("a state of Ray Tune", 256 * 2**20, _RESTORE)
PROMOTION = Limit("a promotion's file", 16 * 2**20, "Run promote without --apply again.", "not a promotion's manifest")
INSTALLED = Limit("an installed file", 16 * 2**20, "Correct it, or move it away.", "cannot be read")
CALIBRATION = Limit("a file of calibrations", 16 * 2**20, "Move it away, and it will be measured again.", "not a file of calibrations")
STARTS = Limit("a file of earlier starts", 16 * 2**20, "Move it away, and it will be measured again.", "not a file of earlier starts")
CACHE = Limit("a file of the cache", 16 * 2**20, "Remove it, and it will be created again.")


class NotThere(UserError):
    """The file does not exist."""


@contextlib.contextmanager
def opened(path: Path, limit: Limit) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, and return it with its size in bytes. Raise UserError if it is of another kind or cannot be read."""
    try:
        _check_regular(path, os.stat(path).st_mode, limit)  # before opening: to open a device may already have an effect
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotThere(f"{path}: there is no such file. {limit.remedy}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}). {limit.remedy}") from error
    with os.fdopen(handle, "rb") as file:
        there = os.fstat(file.fileno())
        _check_regular(path, there.st_mode, limit)
        try:
            yield file, there.st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}). {limit.remedy}") from error


def _check_regular(path: Path, mode: int, limit: Limit) -> None:
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: cannot be read (not a regular file, as {limit.what} is). {limit.remedy}")


def read_bytes(path: Path, limit: Limit) -> bytes:
    """Return the whole content. Raise UserError if the file cannot be read, `NotThere` if it does not exist."""
    with opened(path, limit) as (file, size):
        content = file.read(limit.largest + 1) if size <= limit.largest else b""  # the size may grow, and some file systems report 0
    if max(size, len(content)) > limit.largest:
        raise UserError(f"{path}: cannot be read (larger than {limit.largest} bytes, the most for {limit.what}). {limit.remedy}")
    return content


def read_text(path: Path, limit: Limit) -> str:
    """Return the whole content as UTF-8. Raise UserError if it cannot be read, `NotThere` if the file does not exist."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {limit.malformed} (byte {error.start} is not UTF-8). {limit.remedy}") from error


def read_json(path: Path, limit: Limit) -> Any:
    """Return the value of a JSON file. Raise UserError if it cannot be read, `NotThere` if the file does not exist."""
    return parse_json(read_text(path, limit), path, limit)


def read_lines(path: Path, limit: Limit) -> list[bytes]:
    """Return the complete lines of a file, without an unfinished last one. Raise UserError if it cannot be read, `NotThere` if it does
    not exist."""
    content = read_bytes(path, limit)
    return split_lines(content[: content.rfind(b"\n") + 1], path, limit)


def split_lines(content: bytes, path: Path, limit: Limit) -> list[bytes]:
    """Split a file's content into complete lines. Raise UserError for a line that is too long."""
    lines = content.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > limit.longest_line:
            raise UserError(f"{path}, line {number}: {limit.malformed} (longer than {limit.longest_line} bytes). {limit.remedy}")
    return lines


def parse_json(text: str | bytes, where: object, limit: Limit) -> Any:
    """Return the value of a JSON text. Raise UserError that names its place if it is invalid."""
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where}: {limit.malformed} (nested deeper than {DEEPEST} levels). {limit.remedy}") from error
    except ValueError as error:
        raise UserError(f"{where}: {limit.malformed} ({error}). {limit.remedy}") from error
    level = [content]
    for _ in range(DEEPEST):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return content
    raise UserError(f"{where}: {limit.malformed} (nested deeper than {DEEPEST} levels). {limit.remedy}")


def read_yaml(path: Path, limit: Limit) -> Any:
    """Return the value of a YAML file of plain values. Raise UserError if it cannot be read, `NotThere` if the file does not exist."""
    text = yaml_text(path, limit)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {limit.malformed} ({_where_and_what(error)}). {limit.remedy}") from error


def yaml_text(path: Path, limit: Limit) -> str:
    """Return the text of a YAML file that is safe to load: limited in depth, and in length with its aliases written out. Raise UserError
    otherwise."""
    text = read_text(path, limit)
    try:
        _check_events(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {limit.malformed} ({_where_and_what(error)}). {limit.remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: {limit.malformed} ({error}). {limit.remedy}") from error
    return text


def _check_events(text: str) -> None:
    """Count the values of the file event by event, without building any. Raise ValueError that names the limit that was exceeded."""
    sizes: dict[str, int] = {}
    within: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(io.StringIO(text), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            total += 1
            within.append((event.anchor, total))
            if event.anchor is not None:
                sizes.pop(event.anchor, None)  # an alias before its end would refer to the value that contains it
            if len(within) > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            if anchor is not None:
                sizes[anchor] = total - before + 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.implicit[0]:
                _check_plain(event.value)
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{str(event.anchor)[:40]} refers to no anchor, or to a value that contains it")
            total += sizes[event.anchor]
        if total > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES} values, its aliases written out")


def _where_and_what(error: Exception) -> str:
    """Return the place of a YAML error and its problem. The first line of the error itself has neither."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())[:160]
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    return f"line {line}, column {column}: {' '.join(part for part in (error.problem, error.context) if part)}"[:200]


def _check_plain(value: str) -> None:
    if len(value) > _LONGEST_NUMBER and value[0] in "+-.0123456789" and not any(sign.isspace() for sign in value):
        raise ValueError(f"a number of {len(value)} characters")
