"""Ends what others' programs leave when their owner is killed.

Started as a script (`python reaper.py GRACE_S PID:TICKS …`), from the standard library alone. Its standard input is a pipe that its owner
holds: when the owner ends, however it ends, the pipe closes; what of the named processes is still there after the grace gets SIGKILL. A
process is named by its id and its start (clock ticks after boot, proc(5)), so that nobody is hit who was given the id later. An owner that
has ended them itself writes a word into the pipe before it closes it: then there is no grace.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (proc(5), field 22); null for one that has ended, or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def main(argv: list[str]) -> int:
    """Wait for the owner's end, then end the named; see the module's text."""
    grace_s, *named = argv
    known = {int(pid): int(ticks) for pid, _, ticks in (name.partition(":") for name in named)}
    grace = float(grace_s)
    while os.read(0, 1024):
        grace = 0.0
    deadline = time.monotonic() + grace
    while (alive := [pid for pid, ticks in known.items() if start_ticks(pid) == ticks]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
