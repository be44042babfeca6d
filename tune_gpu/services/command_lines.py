"""Read the flags of a process's command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tune_gpu.services.observation import Reading, parsed

SOURCE = "command line"
_VALUE = re.compile(r"(?!-)|-\d+(\.\d+)?$|-$")
"""A word of a command line that is not a flag."""


def flags_in(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each flag, with its dashes, and the words after it. A value behind `=` is a word of its own."""
    position = 1
    while position < len(argv):
        word, position = argv[position], position + 1
        if _VALUE.match(word):
            continue
        flag, equals, value = word.partition("=")
        given = [value] if equals else []
        while not equals and position < len(argv) and _VALUE.match(argv[position]):
            given.append(argv[position])
            position += 1
        yield flag, given


def plain_flags(argv: Sequence[str]) -> Reading:
    """Return the long flags of a process. A flag without a value is a switch that is on."""
    found = {flag[2:]: parsed(given[0] if len(given) == 1 else given) if given else True for flag, given in flags_in(argv) if flag.startswith("--")}
    return Reading(SOURCE, found)


def given_config(argv: Sequence[str]) -> str | None:
    """Return the file of `--config`, or None."""
    found = None
    for flag, given in flags_in(argv):
        if flag == "--config":
            found = given[0] if given else None
    return found
