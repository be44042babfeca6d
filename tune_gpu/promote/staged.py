"""Stage files beside their destination, so that installing them is one rename, which needs no space on a full disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tune_gpu.common.atomic_files import write_whole

_NEW, _OLD = "tune-gpu-new", "tune-gpu-old"


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Create a folder and its parents, so that they survive a power cut."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def write_durably(path: Path, content: str, like: Path | None = None) -> None:
    """Replace a file atomically, and sync it and its folder before returning."""
    write_whole(path, content, like, follow=False)
    sync_folder(path.parent)


def stage(path: Path, content: str, *, old: bool) -> None:
    """Write the content beside the path, with the permissions of the present file. `old` marks the previous content, else it is the new
    one."""
    make_folder(path.parent)
    write_durably(_beside(path, old), content, like=path)


def install(path: Path) -> None:
    """Rename the staged new content to its destination."""
    _beside(path, old=False).replace(path)
    sync_folder(path.parent)


def put_back(path: Path, content: str | None) -> None:
    """Restore the previous content (None if there was no file). A second call does nothing."""
    if content is None:
        path.unlink(missing_ok=True)
        _discard_one(path, old=False)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # a drop-in folder that was created for the file
        with contextlib.suppress(FileNotFoundError):
            sync_folder(path.parent)
    elif _holds(_beside(path, old=True), content):
        _beside(path, old=True).replace(path)
        sync_folder(path.parent)
    elif not _holds(path, content):
        make_folder(path.parent)
        write_durably(path, content)


def discard(path: Path) -> None:
    """Remove the staged files beside a path."""
    for old in (True, False):
        _discard_one(path, old)


def _discard_one(path: Path, old: bool) -> None:
    with contextlib.suppress(OSError):
        _beside(path, old).unlink(missing_ok=True)


def _beside(path: Path, old: bool) -> Path:
    return path.with_name(f".{path.name}.{_OLD if old else _NEW}")


def _holds(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except (OSError, UnicodeDecodeError):
        return False
