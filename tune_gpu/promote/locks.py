"""Locks, so that only one promote at a time changes a unit, whatever its install folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.promote.ownership import check_own
from tune_gpu.promote.target import Target


@contextlib.contextmanager
def units_locked(target: Target, units: Sequence[str]) -> Iterator[None]:
    """Lock the units within the block. Raise UserError, naming the process, if another one holds a lock. The kernel releases them when a
    process ends."""
    with contextlib.ExitStack() as held:
        for unit in sorted(set(units)):  # the same order in every process, so that two cannot wait for each other
            path = target.lock_of(unit)
            check_own(str(path.parent), path.parent)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(str(path), error) from error
            held.enter_context(exclusive(path, str(path), unit, 0o600))
        yield


@contextlib.contextmanager
def exclusive(path: Path, key: str, what: str, mode: int) -> Iterator[None]:
    """Lock a file within the block.

    Args:
        path: the file, which is created if it is missing. A link in its place is not followed.
        key: the setting that errors name.
        what: what the lock protects, for errors.
        mode: the mode of a new file.

    Raises:
        UserError: the file cannot be opened, or another process, which is named, holds the lock.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _unwritable(key, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise UserError(f"another promote (process {holder or '?'}) is changing {what} now. Wait for its end.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _unwritable(key: str, error: OSError) -> UserError:
    return UserError(f"{key}: {error.strerror or error}. Run promote as a user that may write there.")
