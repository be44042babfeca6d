"""Wait until a deployed service answers, for services that must start after it. systemd's `After=` orders starts, but a started service
need not be ready.

`python -m tune_gpu.services.readiness URL SECONDS` is a unit's `ExecStartPost=`, and units that are ordered after it wait for it
(systemd.service(5)).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tune_gpu.services.loopback import NoAnswer, get

_POLL_S = 0.2


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Return True if a ready server answers. One that requires a key (401) is ready; one that returns 503 or a redirect is not."""
    try:
        status, _ = get(url, deadline_s=timeout_s)
    except NoAnswer:
        return False
    return 200 <= status < 300 or 400 <= status < 500


def wait_until_ready(url: str, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Wait for an answer and return True. Return False at the time-out, or when `alive` returns False."""
    deadline = time.monotonic() + timeout_s
    while not answers(url):
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def main(arguments: list[str]) -> int:
    """Run the command of the module's docstring. systemd passes the unit's process in MAINPID, and would wait for this command although
    that process has ended."""
    url, seconds = arguments
    pid = os.environ.get("MAINPID", "")
    return 0 if wait_until_ready(url, float(seconds), lambda: not pid or os.path.exists(f"/proc/{pid}")) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
