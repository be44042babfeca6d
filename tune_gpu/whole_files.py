"""Files that are never seen half written."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def write_whole(path: Path, content: str | bytes, like: Path | None = None) -> None:
    """Replace a file by rename: a reader sees the old one or the new one, never half.

    Args:
        path: of the file.
        content: of the new one.
        like: may be read by those who may read this one; null: the one that is replaced, if there is one.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            _let_read(file.fileno(), like or path)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:  # a full disk is told by a write, which knows no name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def _let_read(handle: int, like: Path) -> None:
    with contextlib.suppress(OSError):  # there is none, or another's file may not be given away
        known = like.stat()
        os.fchmod(handle, stat.S_IMODE(known.st_mode))
        os.fchown(handle, known.st_uid, known.st_gid)
