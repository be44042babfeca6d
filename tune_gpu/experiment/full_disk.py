"""Detect a run that failed because its folder can no longer be written."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ray.tune import Stopper

from tune_gpu.common.errors import UserError
from tune_gpu.ray_tune.compat import CONTROLLER_LOGGER

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE})
_PROBE_BYTES = 1 << 20


def why_unwritable(folder: Path, error: BaseException | None) -> str | None:
    """Return the system's reason, from the error, its causes, or a test file. Return None if the folder can be written."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _DISK and str(folder) in str(error):
            return os.strerror(error.errno)
        error = error.__cause__ or error.__context__
    probe = folder / f".probe.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as failed:
        return failed.strerror
    finally:
        _remove(probe)
    return None


class StopWhenUnwritable(Stopper):
    """Stop a Tune run as soon as a record could not be written. Tune itself only logs such an error, and would continue to measure in
    vain."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        logging.getLogger(CONTROLLER_LOGGER).addFilter(_in_one_line)
        threading.excepthook = _thread_in_one_line  # TensorBoard writes from its own threads

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune names them
        return self.error is not None

    def stop_all(self) -> bool:
        return self.error is not None

    def note(self, error: OSError) -> None:
        """Keep the error, and shorten Tune's own messages about failed writes from now on."""
        self.error = error
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def unwritable(folder: Path, run_id: str, reason: str) -> UserError:
    """Return the final error of the run, and silence TensorBoard's writer, which retries the write at exit."""
    sys.unraisablehook = _unless_of_the_disk
    return UserError(
        f"{folder}: can no longer be written ({reason}). The results so far are kept there. Free disk space, then resume with --resume {run_id}."
    )


def _is_of_the_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK


def _in_one_line(record: logging.LogRecord) -> bool:
    """Shorten a record of Tune's loggers to one line. Tune may be the first to notice a full disk, and would print a stack trace."""
    error = record.exc_info[1] if record.exc_info else None
    if _is_of_the_disk(error):
        record.msg, record.args, record.exc_info = f"{record.getMessage()} {error}", (), None
    return True


def _thread_in_one_line(ended: threading.ExceptHookArgs) -> None:
    if _is_of_the_disk(ended.exc_value):
        logging.getLogger(__name__).error("%s", ended.exc_value)
    else:
        threading.__excepthook__(ended)


def _unless_of_the_disk(unraisable: sys.UnraisableHookArgs) -> None:
    if not _is_of_the_disk(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
