"""The texts that are sent where a turn begins with text: built in, or the lines of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import TextSettings
from tune_gpu.workload.clip_files import decoded, read_whole
from tune_gpu.workload.sample_texts import SAMPLES
from tune_gpu.workload.stages import Medium

_LONGEST_FILE = 64 * 2**20
LONGEST_LINE = 100_000
"""Characters of one text."""


@dataclass(frozen=True)
class Text:
    """One text of a user."""

    name: str
    reference: str
    language: str = "en"

    @property
    def length(self) -> float:
        """Return the number of characters."""
        return float(len(self.reference))

    def content(self, medium: Medium) -> str:
        """Return the text. Raise ValueError if audio is wanted."""
        if medium is not Medium.TEXT:
            raise ValueError(f"{self.name} is a text")
        return self.reference


def load_texts(settings: TextSettings) -> list[Text]:
    """Return the texts of the source, in a fixed order. Raise UserError if a file cannot be read, has no text or a line that is too long."""
    if settings.source == "samples":
        return [Text(f"sample-{number}", text) for number, text in enumerate(SAMPLES, 1)]
    key = f"workload.texts.source={settings.source}"
    try:
        path = Path(settings.source).expanduser()
        lines = decoded(path, read_whole(path, _LONGEST_FILE, "Keep fewer texts.")).split("\n")
    except (UserError, RuntimeError, ValueError) as error:  # of a home that does not exist, or a name that no file can have
        problem = (str(error).partition(": ")[2] or str(error)).rstrip(".")
        raise UserError(f"{key}: {problem}. Set samples, or a file with one text a line.") from error
    texts = [Text(f"line-{number}", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise UserError(f"{key}: the file has no text. Write one text a line.")
    if long := next((text for text in texts if len(text.reference) > LONGEST_LINE), None):
        raise UserError(f"{key}: {long.name.replace('-', ' ')} has {len(long.reference)} characters, more than {LONGEST_LINE}. Shorten it, or split it into several lines.")
    return texts
