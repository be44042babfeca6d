"""Find the user's cache, this program's source, and the nearest folder that exists."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
"""The folder that holds the packages of this program."""


def cache_folder() -> Path:
    """Return the user's cache folder for this program: `TUNE_GPU_CACHE`, or the platform's default."""
    import platformdirs

    return Path(os.environ.get("TUNE_GPU_CACHE") or platformdirs.user_cache_dir("tune_gpu"))


def python_path(given: str | None) -> str:
    """Return a PYTHONPATH that begins with this program's source, followed by the given path."""
    return os.pathsep.join(filter(None, [str(SOURCE), given]))


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def write_error(folder: Path) -> OSError | None:
    """Return why this user cannot write into a folder that exists, or None."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None
