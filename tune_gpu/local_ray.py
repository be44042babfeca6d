"""A local Ray that nobody else can reach and that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tune_gpu.services import reaper

_OWN_END_S = 5.0


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Within the block a Ray that is started listens on 127.0.0.1 alone (else: on every interface, each of a dozen ports).

    Ray has this as its default on macOS and Windows, under one setting; on Linux the setting is the same.
    """
    from ray._private import ray_constants

    variable, before = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[variable] = "0"  # for the processes that Ray starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(variable, None)


def reaper_of(started: Iterable[int]) -> subprocess.Popen[bytes]:
    """See that these processes (a local Ray's) end with this one, even if that is killed; `communicate` with a word ends them now.

    The kernel ends Ray's servers then, but not their agents: those try for up to a minute to tell a server that has gone of its end.
    """
    named = [f"{pid}:{ticks}" for pid in started if (ticks := reaper.start_ticks(pid)) is not None]
    return subprocess.Popen([sys.executable, "-S", reaper.__file__, str(_OWN_END_S), *named], stdin=subprocess.PIPE, start_new_session=True)


def remove_session(context: Any) -> None:
    """After a run that ended well: the session's folder under /tmp/ray (logs, sockets), which Ray itself never removes."""
    session = Path(str(context.address_info["session_dir"]))
    latest = session.parent / "session_latest"
    with contextlib.suppress(OSError):
        if latest.is_symlink() and latest.resolve() == session.resolve():
            latest.unlink()
    shutil.rmtree(session, ignore_errors=True)
