"""Waits until a deployed service answers, for those that must start after it: systemd's `After=` orders starts, and a start is not readiness.

`python -m tune_gpu.services.readiness URL SECONDS` is a unit's `ExecStartPost=`: what comes after the unit waits for it (systemd.service(5)).
"""

from __future__ import annotations

import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

_POLL_S = 0.2
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A unit may have a proxy, for its downloads: what that answers says nothing."""


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a server is there that can serve. One that wants a key for this (401) is; one that says that it is not ready yet (503) is not."""
    try:
        with _DIRECT.open(url, timeout=timeout_s):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, http.client.HTTPException, ValueError):
        return False


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
