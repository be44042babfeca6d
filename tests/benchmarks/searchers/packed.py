"""Files that are compressed if their name ends in `.gz`."""

from __future__ import annotations

import gzip
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

_PART = 1 << 16


def opened(path: Path, mode: str) -> IO[Any]:
    """As `Path.open`, with `b` or `t` in the mode; what is appended to a compressed file is a member of its own, which readers do not notice."""
    return cast(IO[Any], gzip.open(path, mode)) if path.suffix == ".gz" else path.open(mode)


def content(path: Path) -> tuple[bytes, bool]:
    """What is in it, and whether that is all: of a compressed file whose end is missing, what comes before."""
    found = bytearray()
    with cast(BufferedIOBase, opened(path, "rb")) as file:
        try:
            while part := file.read1(_PART):  # `read` would throw away what it has when the end is missing
                found += part
        except EOFError:
            return bytes(found), False
    return bytes(found), True


def stem(path: Path) -> str:
    """Its name without `.json`, `.gz` or both."""
    return path.name.removesuffix(".gz").removesuffix(".json")
