"""End the processes that another program leaves behind when its owner is killed.

It is started as a script (`python reaper.py GRACE_S WHAT …`) and uses only the standard library. Its owner holds the other end of its
standard input, a pipe, which closes however the owner ends. A process is named as PID:TICKS (its id, and its start in clock ticks after
boot, proc(5)), so that a later process with the same id is not hit. Named processes that are alive after the grace period get SIGKILL. Then
each named folder (an absolute path) is removed, after every process with that folder in a `…dir=` argument has been ended. The owner may
name more processes through the pipe. An owner that has already ended them writes any other word into the pipe, which drops the grace
period.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import time

_PROCESS = re.compile(r"\d+:\d+")
_REMOVAL_S = 30.0


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot (proc(5), field 22), or None if it has ended or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def main(argv: list[str]) -> int:
    """Wait for the owner's end, then end the named processes, as the module's docstring says. Return 0."""
    grace = float(argv[0])
    words = [*argv[1:], *_read_all().split()]
    known = {int(pid): int(ticks) for pid, _, ticks in (word.partition(":") for word in words if _PROCESS.fullmatch(word))}
    folders = [word for word in argv[1:] if word.startswith("/")]
    if len(known) + len(folders) < len(words):
        grace = 0.0
    deadline = time.monotonic() + grace
    while (alive := [pid for pid, ticks in known.items() if start_ticks(pid) == ticks]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for folder in folders:
        _remove(folder)
    return 0


def _read_all() -> str:
    read = b""
    while chunk := os.read(0, 1024):
        read += chunk
    return read.decode(errors="replace")


def _remove(folder: str) -> None:
    """Remove a folder in which processes that are about to end may still create files."""
    deadline = time.monotonic() + _REMOVAL_S
    while os.path.lexists(folder) and time.monotonic() < deadline:
        for pid in _given(folder):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _given(folder: str) -> list[int]:
    """Return the processes with this folder in a `…dir=` argument. An owner that was killed while they started could not name them."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as command:
                if f"dir={folder}".encode() in command.read():
                    found.append(int(name))
    return found


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
