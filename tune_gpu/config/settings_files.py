"""Read settings as written: the YAML of a space or a run, and `key=value`. Nothing in them is evaluated."""

from __future__ import annotations

import copy
import io
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf
from yaml import MarkedYAMLError

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import is_own
from tune_gpu.config.traffic_key import section_of


class WrittenSettings(NamedTuple):
    """A file of settings."""

    content: dict[str, Any]
    own: bool
    """Exactly this content is the user's own."""
    as_typed: dict[str, Any]
    """The content with the user's spelling of its sections."""


def read_settings(path: Path, limit: outside_files.Limit = outside_files.SPACE) -> WrittenSettings:
    """Return the content of a file. Raise UserError if it is not a mapping in YAML."""
    try:
        text = outside_files.yaml_text(path, limit)
        content = copy.deepcopy(_parsed(text))
    except UserError:
        raise
    except Exception as error:  # OmegaConf passes on the YAML library's many kinds
        raise UserError(f"{path}: not valid YAML: {_where_and_what(error)}") from error
    check_plain(content)
    if not isinstance(content, dict):
        raise UserError(f"{path}: {limit.what} is a mapping of keys, not a {type(content).__name__}")
    typed = cast(dict[str, Any], content)
    return WrittenSettings(section_of(typed), is_own(path, text), typed)


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Return what the YAML says, which a command asks several times, and the pure Python parser takes its time for."""
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)


def _where_and_what(error: Exception) -> str:
    """Return the place of a YAML error and its problem. The first line of the error itself has neither."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return one_line(error)
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    return f"line {line}, column {column}: {' '.join(part for part in (error.problem, error.context) if part)}"


def check_plain(content: Any) -> None:
    """Raise UserError for anything but references to other keys: `${oc.env:NAME}` would read this machine's secrets."""
    if isinstance(content, str) and re.search(r"\$\{[^}]*(:|\$\{)", content):
        raise UserError(f"{content}: nothing is evaluated in a configuration; allowed in ${{…}} is the name of another key")
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        check_plain(value)


def one_line(error: Exception) -> str:
    """Return OmegaConf's message on one line, beginning with the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else (lines[0] if lines else type(error).__name__)
