"""Start programs that end with this program, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_gpu.common.process import guard
from tune_gpu.common.process.reaper import start_ticks

SERVICE_NICENESS = 5
_GUARD_SCRIPT = guard.__file__


class ManagedProcess:
    """A program and all its descendants, under a guard that ends them when this process ends, however it ends.

    Args:
        command: program and arguments; never a line for a shell.
        log: file for its output (overwritten).
        env: its whole environment.
        grace_s: seconds between SIGTERM and SIGKILL.
        cores: CPU cores for it and its children; None for all.
        scratch: a folder to remove with it, even if this process is killed; None for none.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        grace_s: float = 5.0,
        cores: Sequence[int] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.log = log
        self.grace_s = grace_s
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", _GUARD_SCRIPT, str(grace_s), str(scratch or ""), "--", *pinned(command, cores)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        # The pipe closes when this process ends. The finalizer serves an owner that lives on without calling `stop`.
        self._finalizer = weakref.finalize(self, _close, self._guard)

    @property
    def pid(self) -> int:
        """Return the guard's process id, the root of the process tree."""
        return self._guard.pid

    def exit_code(self) -> int | None:
        """Return the program's exit code (128 + signal if a signal ended it), or None while it runs."""
        return self._guard.poll()

    def pids(self) -> list[int]:
        """Return the process ids of the program and its descendants, without the guard's own two processes."""
        return guard.descendants(self._guard.pid)[1:]

    def stop(self) -> None:
        """End the program and its descendants, and return when all have ended. A second call does nothing."""
        tree = self.pids() if self.exit_code() is None else []
        self._finalizer()
        try:
            self._guard.wait(self.grace_s + 10.0)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        if self._guard.returncode < 0:  # the guard was killed: its watch, in the same session, ends the rest
            self._await_watch()
        kill_and_wait(tree)

    def _await_watch(self) -> None:
        deadline = time.monotonic() + self.grace_s + 10.0
        while alive := session_pids(self._guard.pid):
            if time.monotonic() > deadline:
                kill_and_wait(alive)
            time.sleep(0.01)


def pinned(command: Sequence[str], cores: Sequence[int] | None) -> list[str]:
    """Return the command, restricted to these cores by `taskset` (util-linux): a user would deploy it so, and all threads and children
    inherit it.

    All services run at the same priority, a little below this process's (`nice`): the load generator must be on time even if it shares
    their cores.
    """
    return ["nice", "-n", str(SERVICE_NICENESS), *(["taskset", "-c", ",".join(map(str, cores))] if cores else []), *command]


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()


def process_age_s() -> float:
    """Return the seconds since this process was started, by a clock that does not jump."""
    ticks = start_ticks(os.getpid()) or 0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def session_pids(session: int) -> list[int]:
    """Return all processes of a session (setsid(2))."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == session and start_ticks(int(name)) is not None:
                    found.append(int(name))
    return found


def kill_and_wait(pids: Sequence[int], timeout_s: float = 10.0) -> None:
    """Send SIGKILL to these processes and wait until they have ended. Raise TimeoutError if one stays (when a driver hangs, for
    example)."""
    births = {pid: start_ticks(pid) for pid in pids}
    left = {pid: birth for pid, birth in births.items() if birth is not None}
    deadline = time.monotonic() + timeout_s
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(start_ticks(pid) == birth for pid, birth in left.items()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(left)} are still there {timeout_s:g} s after SIGKILL")
        time.sleep(0.01)


def end_session(session: int, grace_s: float) -> None:
    """End every process of a session: SIGTERM to its leader, a grace period, SIGKILL to the rest. Unlink the shared memory that they
    mapped."""
    leftovers = guard.shared_memory_of(session_pids(session))
    with contextlib.suppress(ProcessLookupError):
        os.kill(session, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and start_ticks(session) is not None:
        time.sleep(0.02)
    while alive := session_pids(session):
        leftovers |= guard.shared_memory_of(alive)
        kill_and_wait(alive)
    for path in leftovers:
        Path(path).unlink(missing_ok=True)
