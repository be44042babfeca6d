"""Let one process at a time change a file that several runs share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_WAIT_S = 10.0
"""Longest wait. A change takes milliseconds, so whoever holds the lock longer does not run."""
_POLL_S = 0.01


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file within the block. The kernel releases it when a process ends.

    The lock is a file beside it (`.NAME.lock`), because the file itself is replaced by each change.

    Raises:
        OSError: the lock cannot be created, or another process has held it too long.
    """
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _wait(handle)
        yield
    finally:
        os.close(handle)


def _wait(handle: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
