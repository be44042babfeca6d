"""Folders of models: those in installed packages, and those that this program makes once and keeps in the user's cache."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.places import cache_folder


def package_folder(distribution: str) -> Path | None:
    """Return the folder of an installed package, found without importing it, or None."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    return Path(spec.origin).parent if spec and spec.origin else None


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of the user's cache. Make it under another name and rename it, so that two makers at once do no harm.

    Raises:
        UserError: the cache cannot be written, or has no room.
    """
    cache = cache_folder() / "models"
    target = cache / name
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    except OSError as error:
        raise UserError(f"TUNE_GPU_CACHE: the model cache {cache} cannot be written ({error}). Set it to a writable folder.") from error
    try:
        make(aside)
        aside.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise UserError(f"TUNE_GPU_CACHE: {name} cannot be made in {cache} ({error}). Set it to a folder with room.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
