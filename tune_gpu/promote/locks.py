"""Only one promote at a time changes a unit, from whatever folder it installs."""

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
    """Hold the units for the block. Raises UserError that names who holds one; the kernel lets go of them when a process ends."""
    with contextlib.ExitStack() as held:
        for unit in sorted(set(units)):  # in one order everywhere
            held.enter_context(_locked(unit, target.lock_of(unit)))
        yield


@contextlib.contextmanager
def _locked(unit: str, path: Path) -> Iterator[None]:
    check_own(str(path.parent), path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}. Run promote as a user that may write there.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise UserError(f"another promote (process {holder or '?'}) is changing {unit} now. Wait for its end.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
