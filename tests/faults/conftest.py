"""The fault suite breaks the real thing on purpose. Moments that are drawn are drawn from a seed, which every failure names.

    TUNE_GPU_FAULT_SEED=7 make test TESTS=tests/faults       # other moments
    make test TESTS=tests/faults ARGS="-m soak"              # the long forms: more moments, a thousand in a row
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import unowned
from tune_gpu.common.process import guard

SEED = int(os.environ.get("TUNE_GPU_FAULT_SEED", "0"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Of its own for each test, so that one test can be run again alone."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "tests/faults" in str(item.path).replace("\\", "/"):
        report.sections.append(("fault seed", f"TUNE_GPU_FAULT_SEED={SEED}"))
    return report


@dataclass(frozen=True)
class Traces:
    """What a fault might leave behind, in this process and below it."""

    processes: frozenset[int]
    listening: frozenset[int]
    files: int
    threads: int
    shared_memory: frozenset[str]
    folders: frozenset[str]
    memory_mib: float

    @classmethod
    def now(cls) -> Traces:
        me = psutil.Process()
        pids = [pid for pid in guard.descendants(me.pid) if psutil.pid_exists(pid)]
        members = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        alive = []
        memory, ports = 0, set()
        for member in [me, *members]:
            try:
                if member.status() == psutil.STATUS_ZOMBIE:
                    continue
                memory += member.memory_full_info().pss
                ports |= {c.laddr.port for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN}
                alive.append(member.pid)
            except psutil.Error:
                continue
        temporary = Path(tempfile.gettempdir())
        return cls(
            frozenset(alive),
            frozenset(ports),
            me.num_fds(),
            threading.active_count(),
            frozenset(path.name for path in Path("/dev/shm").iterdir()),
            frozenset(str(path) for pattern in ("tg-*", "tg-fork-*/*") for path in temporary.glob(pattern)),
            memory / 2**20,
        )

    def left_behind(self, before: Traces) -> dict[str, object]:
        """What is there now and was not before; what other programs of this machine do meanwhile is left out where it can be told."""
        new = self.shared_memory - before.shared_memory
        found = {
            "processes": self.processes - before.processes,
            "ports": self.listening - before.listening,
            "shared memory": unowned(lambda: {Path("/dev/shm", name) for name in new if _is_ours(name)}),
            "folders": self.folders - before.folders,
            "open files": max(0, self.files - before.files),
            "threads": max(0, self.threads - before.threads),
            "memory (MiB)": grown if (grown := self.memory_mib - before.memory_mib) > 200 else 0,
        }
        return {name: value for name, value in found.items() if value}


def _is_ours(segment: str) -> bool:
    """A segment that nobody has mapped is a leftover; one that another program has mapped is that program's."""
    path = f"/dev/shm/{segment}"
    mine = {os.getpid(), *guard.descendants(os.getpid())}
    mapped = {int(maps.parent.name) for maps in Path("/proc").glob("[0-9]*/maps") if _mentions(maps, path)}
    return Path(path).exists() and (not mapped or bool(mapped & mine))


def _mentions(maps: Path, path: str) -> bool:
    try:
        return path in maps.read_text()
    except OSError:
        return False


@pytest.fixture(scope="session", autouse=True)
def a_temporary_folder_of_our_own() -> Iterator[None]:
    """What lies in it is this session's, whatever else runs on the machine. Others may enter it, as they may the usual one."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="tgf-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        os.environ["TMPDIR"], tempfile.tempdir = folder, None
        yield
        tempfile.tempdir = None
        os.environ.pop("TMPDIR")
        os.environ.update({} if before is None else {"TMPDIR": before})


@pytest.fixture(autouse=True)
def nothing_of_ours_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Processes, ports, /dev/shm, temporary folders, files, threads and memory are what they were before the test."""
    if "evaluator" in request.fixturenames:
        request.getfixturevalue("evaluator")
    before = Traces.now()
    yield
    left = Traces.now().left_behind(before)
    if request.node.get_closest_marker("own_cluster"):
        left.pop("open files", None)
    assert not left, f"left behind: {left}"
