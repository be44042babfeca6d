"""What a service leaves behind after its end: processes, a port, files and shared memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tune_gpu.common.process.guard import shared_memory_of
from tune_gpu.common.process.reaper import start_ticks
from tune_gpu.services.running import RunningService

_MARK = "TUNE_GPU_CONFORMANCE"


class Leavings:
    """Finds what a service that ended has left: what was seen of it while it ran, and what its environment marks as its own."""

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder, self._mark = folder, f"{_MARK}={mark}".encode()
        self._began = time.time()
        self._processes: dict[int, int | None] = {}
        self._shared_memory: set[str] = set()
        self._ports: set[int] = set()

    def see(self, service: RunningService[object]) -> None:
        """Remember what the service has now."""
        pids = service.pids()
        self._processes.update({pid: start_ticks(pid) for pid in pids})
        self._shared_memory |= shared_memory_of(pids, self._began)
        self._ports.add(urlsplit(service.endpoint.url).port or 80)

    def left(self) -> list[str]:
        """Return what is still there, in words; empty if nothing is."""
        alive = {pid for pid, ticks in self._processes.items() if ticks is not None and start_ticks(pid) == ticks} | set(self._marked())
        return [
            *(f"process {pid}" for pid in sorted(alive)),
            *(f"port {port}" for port in sorted(self._ports) if not _is_free(port)),
            *(f"file {path}" for path in sorted(self._folder.iterdir())),
            *(f"shared memory {path}" for path in sorted(self._shared_memory) if os.path.exists(path)),
        ]

    def check(self) -> None:
        """Fail if anything is still there."""
        left = self.left()
        assert not left, f"left behind: {', '.join(left)}"

    def _marked(self) -> Iterator[int]:
        """Yield the processes that were started with the marked environment, however deep and in whatever session."""
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(name) != os.getpid() and self._mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0") and start_ticks(int(name)) is not None:
                    yield int(name)


@contextlib.contextmanager
def watched() -> Iterator[Leavings]:
    """Mark the environment of what is started within the block, and give it a folder of its own for temporary files."""
    folder, mark = Path(tempfile.mkdtemp(prefix="tgc-")), uuid.uuid4().hex
    before = {name: os.environ.get(name) for name in ("TMPDIR", _MARK)}
    tempdir = tempfile.tempdir
    os.environ.update({"TMPDIR": str(folder), _MARK: mark})
    tempfile.tempdir = None
    try:
        yield Leavings(folder, mark)
    finally:
        tempfile.tempdir = tempdir
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: connections that have ended do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
