"""Write files atomically, and without following a link to somewhere else."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 16 * 2**20
"""Largest file that `read_plain` reads, in bytes. The files that a promotion writes are far smaller."""


def write_whole(path: Path, content: str | bytes, like: Path | None = None, *, follow: bool = True) -> None:
    """Replace a file by rename, so that a reader sees the old file or the new one, never a part. A symbolic link at the path is replaced.

    The temporary name is random and is created exclusively. In a folder that somebody else owns, a predictable name could already be a
    link.

    Args:
        path: the file to replace.
        content: its new content.
        like: a file whose mode and owner are copied, or a name in the same folder. None copies those of the replaced file, if it exists.
        follow: whether the path of the folder may contain symbolic links. If not, missing folders are created.

    Raises:
        OSError: the file could not be written. It names the path.
    """
    aside = f".{path.name}.{secrets.token_hex(8)}"
    try:
        with _folder(path.parent, follow=follow, make=not follow) as folder:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    _let_read(file.fileno(), path.name if like is None else like, folder)
                    file.write(content.encode() if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside, dir_fd=folder)
                raise
    except OSError as error:  # the error of a write on a full disk has no file name
        raise OSError(error.errno, error.strerror, str(error.filename) if error.errno == errno.ELOOP else str(path)) from error


def append_whole(path: Path, content: bytes) -> None:
    """Append lines to a regular file with one write, and sync them to disk. Create the file if it is missing.

    Links and pipes are refused: a run's folder may belong to somebody else, whose link could lead to a start-up script of this user, and a
    pipe would block.

    Raises:
        OSError: the path is not a regular file, or the disk is full. Then nothing of the content is left in the file. It names the path.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            written = os.write(handle, content)
            if written != len(content):
                os.ftruncate(handle, os.fstat(handle).st_size - written)
                raise OSError(errno.ENOSPC, "no space left for a whole line", str(path))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        reason = "a symbolic link, which is not followed here" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, reason, str(path)) from error


def read_plain(path: Path, most: int = _MOST_BYTES) -> bytes | None:
    """Return the content of a regular file without following links, or None if it does not exist. Raise OSError for any other kind of
    file, and for more than `most` bytes."""
    try:
        with _folder(path.parent, follow=False, make=False) as folder:
            handle = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        too_large = os.fstat(file.fileno()).st_size > most  # before reading: a sparse file costs nothing to make
        content = b"" if too_large else file.read(most + 1)
    if too_large or len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return content


def remove_plain(path: Path) -> None:
    """Remove a file, or a link at its path, without following links to its folder. Do nothing if it does not exist."""
    with contextlib.suppress(FileNotFoundError), _folder(path.parent, follow=False, make=False) as folder:
        os.unlink(path.name, dir_fd=folder)


@contextlib.contextmanager
def _folder(path: Path, *, follow: bool, make: bool) -> Iterator[int]:
    """Open a folder. The handle stays with this folder even if the path leads elsewhere later. Without `follow`, raise ELOOP for a link
    in the path."""
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if follow else _walk(path.absolute(), make=make)
    try:
        yield handle
    finally:
        os.close(handle)


def _walk(path: Path, *, make: bool) -> int:
    handle, here = os.open(path.anchor, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), Path(path.anchor)
    for part in path.parts[1:]:
        here /= part
        try:
            inner = _step(handle, part, make=make)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(here)) from error
        finally:
            os.close(handle)
        handle = inner
    return handle


def _step(folder: int, part: str, *, make: bool) -> int:
    """Open one folder further down."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(part, flags, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed here") from error
        raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, dir_fd=folder)
    return os.open(part, flags, dir_fd=folder)


def _let_read(handle: int, like: str | Path, folder: int) -> None:
    """Copy the mode and the owner of another file, without set-user-ID, set-group-ID and sticky bits. Do not follow a link."""
    with contextlib.suppress(OSError):  # it does not exist, or this user may not give files away
        known = os.stat(like, dir_fd=folder if isinstance(like, str) else None, follow_symlinks=False)
        if stat.S_ISREG(known.st_mode):
            os.fchmod(handle, stat.S_IMODE(known.st_mode) & 0o777)
            os.fchown(handle, known.st_uid, known.st_gid)
