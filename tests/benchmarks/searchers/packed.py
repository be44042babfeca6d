"""Files that are compressed if their name ends in `.gz`."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Any, cast


def opened(path: Path, mode: str) -> IO[Any]:
    """As `Path.open`, with `b` or `t` in the mode; what is appended to a compressed file is a member of its own, which readers do not notice."""
    return cast(IO[Any], gzip.open(path, mode)) if path.suffix == ".gz" else path.open(mode)


def stem(path: Path) -> str:
    """Its name without `.json`, `.gz` or both."""
    return path.name.removesuffix(".gz").removesuffix(".json")
