"""Read the lines of a file of conversations. It comes from outside: every problem is one line that names the file and the place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.workload.clip_files import decoded

CONVERSATIONS = outside_files.Limit("a file of conversations", 2**30, "Keep fewer conversations.", "not whole JSON", longest_line=16 * 2**20)
MOST_CONVERSATIONS = 1_000_000
MOST_CHARACTERS = 4_000_000
"""Of one message."""


@dataclass(frozen=True)
class Place:
    """Where something stands in a source, as an error names it."""

    source: str
    """The setting and its value."""
    where: str = ""
    """`line 12` for example."""

    def error(self, problem: str, remedy: str) -> UserError:
        """Return the error about it.

        Args:
            problem: without a full stop.
            remedy: a sentence.
        """
        at = f", {self.where}" if self.where else ""
        return UserError(f"{self.source}{at}: {problem}. {remedy}")

    def at(self, where: str) -> Place:
        """Return another place in the same source."""
        return Place(self.source, where)


def text_of_file(path: Path, place: Place) -> str:
    """Return the text of a file. Raise UserError if it cannot be read as text."""
    try:
        return decoded(path, outside_files.read_bytes(path, CONVERSATIONS))
    except UserError as error:
        raise UserError(f"{place.source}: {str(error).partition(': ')[2]}") from error


def lines_of(text: str, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield every line that is not blank, with its place. Raise UserError for too many lines, or a line that is too long."""
    n = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        n += 1
        at = place.at(f"line {number}")
        if n > MOST_CONVERSATIONS:
            raise at.error(f"more than {MOST_CONVERSATIONS} lines", CONVERSATIONS.remedy)
        if len(line) > CONVERSATIONS.longest_line:
            raise at.error(f"longer than {CONVERSATIONS.longest_line} characters", "Shorten or remove it.")
        yield at, line.strip()


def object_of(line: str, place: Place) -> dict[str, Any]:
    """Return the JSON object of a line. Raise UserError if it is anything else, half a line for example."""
    content = json_of(line, place, "Complete the line, or remove it.")
    if not isinstance(content, dict):
        raise place.error(f"a JSON {type(content).__name__}, not an object", "Write one object per line.")
    return content


def json_of(text: str, place: Place, remedy: str) -> Any:
    """Return the value of a JSON text. Raise UserError if it is not whole."""
    try:
        return outside_files.parse_json(text, "", CONVERSATIONS)
    except UserError as error:
        problem = str(error).partition(": ")[2].removesuffix(f" {CONVERSATIONS.remedy}").rstrip(".")
        raise place.error(problem, remedy) from error


def words(value: Any, place: Place, what: str) -> str:
    """Return a text without blanks at its ends. Raise UserError if it is not a text, is empty, or is too long."""
    if not isinstance(value, str):
        raise place.error(f"{what} is a {type(value).__name__}, not a text", "Write a text.")
    found = value.strip()
    if not found:
        raise place.error(f"{what} is empty", "Write a text, or remove it.")
    if len(found) > MOST_CHARACTERS:
        raise place.error(f"{what} has {len(found)} characters, more than {MOST_CHARACTERS}", "Shorten it.")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise place.error(f"{what} has half a character (a lone surrogate)", "Write it as UTF-8.") from error
    return found
