"""Run a program, and end it with everything that it started.

It is started as a script (`python guard.py GRACE_S SCRATCH -- PROGRAM ARGS…`) and uses only the standard library, so that it is up in
milliseconds. Its owner holds the other end of its standard input, a pipe. However the owner ends, the pipe closes, and the guard ends the
program: SIGTERM, a grace period, then SIGKILL to every descendant. As a child subreaper it remains the ancestor of orphans (an engine
process whose API server has died), so that none escapes. Then it removes the program's scratch folder, if SCRATCH names one, because a
killed owner cannot. It exits with the program's code, or 128 + signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent's thread ends (prctl(2)), for children that nothing else would end."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def head(path: str) -> bytes:
    """Return the first KiB of a file under /proc or /sys. A file object would take twice as long, and telemetry reads thousands in a window."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 1024)
    finally:
        os.close(file)


def descendants(root: int) -> list[int]:
    """Return the process ids below `root`, without `root` itself, from /proc. A process that ends meanwhile is left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int(head(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def shared_memory_of(pids: list[int], since: float = 0.0) -> set[str]:
    """Return the files under /dev/shm that these processes have mapped. A killed process cannot unlink its own.

    Args:
        pids: the processes.
        since: leave out files that are older than this time (seconds since the epoch): they may be somebody else's.
    """
    paths: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as maps:
            paths.update(re.findall(r"(/dev/shm/\S+)$", maps.read(), re.MULTILINE))
    return {path for path in paths if _changed_since(path, since)}


def _changed_since(path: str, since: float) -> bool:
    try:
        return os.stat(path).st_ctime >= since
    except OSError:
        return False


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _reap() -> dict[int, int]:
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


def end_all(program: int, grace_s: float, began: float) -> None:
    """End the program and its children: SIGTERM, a grace period, then SIGKILL until none is left. Unlink the shared memory that they made
    since the program began."""
    leftovers = shared_memory_of(descendants(os.getpid()), began)
    _signal([program], signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (alive := descendants(os.getpid())) and time.monotonic() < deadline:
        _reap()
        leftovers |= shared_memory_of(alive, began)
        if program not in alive:
            break  # the orphans of a program that has ended get no grace period
        time.sleep(0.02)
    while alive := descendants(os.getpid()):
        _signal(alive, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    for path in leftovers:
        with contextlib.suppress(OSError):
            os.unlink(path)


def main(argv: list[str]) -> int:
    """Run the program after `--` under guard (see the module's docstring). Return its exit code."""
    grace_s, scratch, separator, *command = argv
    assert separator == "--", argv
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    outer = os.getpid()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: asked.append(n))
    watch = os.fork()
    if watch:
        return relay(watch, asked)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # not inherited by a fork
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != outer:
        return 128 + signal.SIGKILL
    return watch_over(command, float(grace_s), scratch, asked)


def relay(watch: int, asked: list[int]) -> int:
    """Forward signals to the watch, and wait for it. If it was killed, end the processes that it leaves. Return its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: _signal([watch], n))
    if asked:  # a signal arrived between the fork and here
        _signal([watch], signal.SIGTERM)
    status: int | None = None
    while status is None:  # orphans of a killed watch are reparented to this process
        pid, ended = os.waitpid(-1, 0)
        status = ended if pid == watch else None
    while alive := descendants(os.getpid()):
        _signal(alive, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def watch_over(command: list[str], grace_s: float, scratch: str, asked: list[int]) -> int:
    """Start the program, wait until it or its owner ends, and end all of its processes. Return its exit code."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    began = time.time() - 0.01  # the clock of a file system lags by a tick
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent)
    status: int | None = None
    while status is None and not asked:
        ready, _, _ = select.select([0, wake_read], [], [])
        if 0 in ready and not os.read(0, 1024):
            asked.append(signal.SIGTERM)
        if wake_read in ready:
            os.read(wake_read, 1024)
            status = _reap().get(child.pid)
    end_all(child.pid, grace_s if status is None else 0.0, began)
    if status is None:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        return 128 + signal.SIGTERM
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
