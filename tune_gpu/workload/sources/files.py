"""The other files that a traffic of sessions names: a system prompt, definitions of tools, the times at which sessions begin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.workload.sources.lines import Place, json_of, lines_of, text_of_file, words
from tune_gpu.workload.sources.openai_messages import definitions_of

_LATEST_S = 366 * 86_400.0


def path_of(given: str, key: str) -> Path:
    """Return the path that a setting names. Raise UserError if no file or folder can have it, or if it does not exist."""
    try:
        path = Path(given).expanduser()
        exists = path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{key}={given}: not a path ({error}). Set another one.") from error
    if not exists:
        raise UserError(f"{key}={given}: no such file. Correct the path.")
    return path


def prompt_text(given: str, key: str) -> str:
    """Return the text of a system prompt. Raise UserError if it cannot be read, or is empty."""
    place = Place(f"{key}={given}")
    return words(text_of_file(path_of(given, key), place), place, "the prompt")


def tool_definitions(given: str, key: str) -> tuple[Mapping[str, Any], ...]:
    """Return the definitions of tools in a JSON file. Raise UserError if it has none, or something else."""
    place = Place(f"{key}={given}")
    content = json_of(text_of_file(path_of(given, key), place), place, "Complete the file.")
    definitions = definitions_of(content.get("tools") if isinstance(content, dict) else content, place)
    if not definitions:
        raise place.error("has no tool", "Add one, or remove the setting.")
    return definitions


def arrival_times(given: str, key: str) -> tuple[float, ...]:
    """Return the times of a file in seconds, one per line: the first column of a CSV, whose first line may be a heading.

    Raises:
        UserError: a line is not a time, or its time is before the one above it.
    """
    place = Place(f"{key}={given}")
    times: list[float] = []
    for number, (at, line) in enumerate(lines_of(text_of_file(path_of(given, key), place), place)):
        first = line.partition(",")[0].strip().strip('"')
        if line.startswith("#"):
            continue
        try:
            time_s = float(first) if len(first) < 40 else math.nan
        except ValueError:
            if number == 0:
                continue
            time_s = math.nan
        if not 0 <= time_s <= _LATEST_S:
            raise at.error(f"{first[:40]!r} is not a time in seconds", f"Write a number from 0 to {_LATEST_S:.0f}.")
        if times and time_s < times[-1]:
            raise at.error(f"the time goes back, from {times[-1]:g} to {time_s:g}", "Sort the lines by time.")
        times.append(time_s)
    if not times:
        raise place.error("has no time", "Write one per line, in seconds.")
    return tuple(times)
