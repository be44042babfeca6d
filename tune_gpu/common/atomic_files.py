"""Files that are never seen half written, and that no link leads elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 16 * 2**20
"""Of a file that `read_plain` reads: what this program writes for a promotion is far smaller."""


def write_whole(path: Path, content: str | bytes, like: Path | None = None, *, follow: bool = True) -> None:
    """Replace a file by rename: a reader sees the old one or the new one, never half. A link in its place is replaced, not followed.

    The temporary name cannot be foreseen and is never opened where something has it already: in a folder of somebody else's, whoever
    owns it could otherwise have a link waiting there.

    Args:
        path: of the file.
        content: of the new one.
        like: may be read by those who may read this one; null: the one that is replaced, if there is one.
        follow: whether links may lead to the file's folder; if not, folders that are missing are made as well.

    Raises:
        OSError: with the path, whatever could not be done.
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
    except OSError as error:  # a full disk is told by a write, which knows no name
        raise OSError(error.errno, error.strerror, str(error.filename) if error.errno == errno.ELOOP else str(path)) from error


def append_whole(path: Path, content: bytes) -> None:
    """Add lines to a regular file in one write, on disk when this returns; the file is made if it is missing.

    A run's folder may be somebody else's: a link in the file's place could lead to a start-up script of this user's, and a pipe would block.

    Raises:
        OSError: with the path, for anything but a regular file, and where there is no room. Then nothing of the content is left behind.
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
        said = "a symbolic link, which is not followed here" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, said, str(path)) from error


def read_plain(path: Path, most: int = _MOST_BYTES) -> bytes | None:
    """A regular file's content, to which no link leads; null if there is none. Raises OSError for anything else, and for more than `most` bytes."""
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
        too_large = os.fstat(file.fileno()).st_size > most  # a sparse file is refused unread
        content = b"" if too_large else file.read(most + 1)
    if too_large or len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return content


def remove_plain(path: Path) -> None:
    """Remove a file, or a link in its place, to whose folder no link leads; nothing happens where there is none."""
    with contextlib.suppress(FileNotFoundError), _folder(path.parent, follow=False, make=False) as folder:
        os.unlink(path.name, dir_fd=folder)


@contextlib.contextmanager
def _folder(path: Path, *, follow: bool, make: bool) -> Iterator[int]:
    """A handle on a folder: whatever its path leads to later, the handle stays with it. Without `follow`, ELOOP names a link on the way."""
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
    """One folder further down."""
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
    """Give the mode and the owner of another file (not of what a link leads to), without set-user-ID and the like."""
    with contextlib.suppress(OSError):  # there is none, or another's file may not be given away
        known = os.stat(like, dir_fd=folder if isinstance(like, str) else None, follow_symlinks=False)
        if stat.S_ISREG(known.st_mode):
            os.fchmod(handle, stat.S_IMODE(known.st_mode) & 0o777)
            os.fchown(handle, known.st_uid, known.st_gid)
