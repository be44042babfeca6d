"""A short run of the default space, and waiting for a line of a command's output."""

from __future__ import annotations

import subprocess

from tests.support import made_run

QUICK = [
    *made_run.QUICK,
    "workload.windows=2",
    "search.generations=2",
    "parameters.whisper_cores.values=['1','0','0-1']",
    "confirm.enabled=false",
]


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read its output up to the line that holds the text."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {''.join(seen)}")
