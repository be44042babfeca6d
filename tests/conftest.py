"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

OURS = ("tune_gpu.services", "services/guard.py", "VLLM::", "vllm.entrypoints")


def our_processes() -> list[str]:
    """Everything that this program starts and that runs now."""
    found = []
    for process in psutil.process_iter(["cmdline", "name", "status", "pid"]):
        line = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
        if any(mark in line for mark in OURS) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{process.info['pid']} {line[:120]}")
    return found


@pytest.fixture(autouse=True)
def nothing_of_ours_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test nothing that it started is running."""
    before = set(our_processes())
    yield
    if request.node.get_closest_marker("services") or request.node.get_closest_marker("ray") or "process" in request.node.nodeid:
        left = [line for line in our_processes() if line not in before]
        assert not left, f"left running: {left}"
