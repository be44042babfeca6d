"""Waits until a deployed service answers, for those that must start after it: systemd's `After=` orders starts, and a start is not readiness.

`python -m tune_gpu.services.readiness URL SECONDS` is a unit's `ExecStartPost=`: what comes after the unit waits for it (systemd.service(5)).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tune_gpu.services.loopback import NoAnswer, get

_POLL_S = 0.2


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Return whether a server is there that can serve. One that wants a key for this (401) is; one that is not ready yet (503) is not, and
    neither is one that redirects to another."""
    try:
        status, _ = get(url, deadline_s=timeout_s)
    except NoAnswer:
        return False
    return 200 <= status < 300 or 400 <= status < 500


def wait_until_ready(url: str, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """False if it does not answer in this time, or is no longer alive."""
    deadline = time.monotonic() + timeout_s
    while not answers(url):
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def main(arguments: list[str]) -> int:
    """See the module's text. systemd tells the unit's process in MAINPID, and would wait for this one although that has ended."""
    url, seconds = arguments
    pid = os.environ.get("MAINPID", "")
    return 0 if wait_until_ready(url, float(seconds), lambda: not pid or os.path.exists(f"/proc/{pid}")) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
