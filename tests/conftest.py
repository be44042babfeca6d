"""What all tests share."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.setup import engine_environment

pytest.register_assert_rewrite("tune_gpu.testing")  # whose tests say what they found only then
MARK = "TUNE_GPU_TEST_SESSION"
os.environ[MARK] = uuid.uuid4().hex  # inherited by whatever a test starts, however deep
if "TUNE_GPU_CACHE" not in os.environ:  # what tests make and learn does not reach the user's own cache
    os.environ["TUNE_GPU_CACHE"] = tempfile.mkdtemp(prefix="tune-gpu-tests-")
    atexit.register(shutil.rmtree, os.environ["TUNE_GPU_CACHE"], ignore_errors=True)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job has it: what a test starts would ignore its Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("tune_gpu", deadline=None)  # no test asks the clock: a machine may stand still
hypothesis.settings.load_profile("tune_gpu")
STATUS = pytest.StashKey[int]()
BESIDE = "PYTEST_XDIST_WORKER" in os.environ
"""Other tests run at the same time, in other processes."""
NEEDS = {
    "tests/services/test_flag_check.py": "vLLM's parser",
    "tests/services/test_foreign_options.py": "vLLM's parser",
    "tests/services/test_serve_options.py": "vLLM's parser",
    "tests/services/test_whisper_openai.py": "Whisper",
    "tests/services/test_whisper_service.py": "Whisper",
}
"""File of tests/services -> what it needs, if that is no engine. Files with the same need run one after another in one process."""
OURS = ("tune_gpu", "VLLM::", "vllm.entrypoints", "process/guard.py")


def our_processes(besides: Collection[str] = ()) -> list[str]:
    """All that this session's tests have started, and that runs now (Ray's own processes left out: they end with Ray).

    From /proc, and not by psutil, and without a look at those that are known: it is asked after every test, and takes a hundredth of the time.
    """
    found, session = [], f"{MARK}={os.environ[MARK]}".encode()
    for pid in filter(str.isdecimal, set(os.listdir("/proc")).difference(besides)):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")  # a zombie's is empty
            ours = int(pid) != os.getpid() and any(mark in line for mark in OURS)
            if ours and session in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(f"{pid} {line[:120]}")
    return found


def shared_memory() -> set[Path]:
    """Return the segments of the kinds that an engine makes."""
    return {*Path("/dev/shm").glob("psm_*"), *Path("/dev/shm").glob("tg*")}


def unowned(look: Callable[[], set[Path]]) -> set[Path]:
    """Return the segments that stay although no process has them. An engine of a test beside this one removes its own in a moment."""
    deadline = time.monotonic() + (20.0 if BESIDE else 0.0)
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)  # no event tells that a file of somebody else's is gone
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, and files of tests/services that need the same thing in the same one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return NEEDS.get(file, "an engine") if file.startswith("tests/services/") else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def nothing_of_ours_is_left() -> Iterator[None]:
    """After every test nothing that it started is running, and no shared memory of its own is left."""
    before, shared = os.listdir("/proc"), shared_memory()
    yield
    left = our_processes(before)
    assert not left, f"left running: {left}"
    mine = unowned(lambda: {path for path in shared_memory() - shared if not _mapped(path)})
    assert not mine, f"left under /dev/shm: {mine}"


@pytest.fixture(autouse=True)
def signals_are_handled_as_before() -> Iterator[None]:
    """After every test each signal has the handler that it had: Ray Tune and `ray.init` leave theirs behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The tests are over and told: what is left to do is done, and the process ends without taking the interpreter down.

    Threads of Ray's may ask for the interpreter just then (ray-project/ray#47864): a run of 1,094 passed tests ended with a segmentation
    fault, and not with pytest's status.
    """
    status = config.stash.get(STATUS, None)
    if "ray" in sys.modules and status is not None and not hasattr(config, "workerinput"):  # pytest-xdist's workers have more to tell
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the process will say."""
    session.config.stash[STATUS] = int(session.exitstatus)


@pytest.fixture(scope="session")
def host() -> Iterator[ForkServer]:
    """One fork server for all tests that want one: its imports cost more than an engine.

    It is up before the first of them begins, so that it is not taken for a leftover of that test.
    """
    from tune_gpu.services.vllm.settings import VllmSettings

    host = ForkServer(engine_environment(VllmSettings(cpu_cores="0"), "", "cpu", "/tmp"))
    host.open()
    yield host
    host.close()


def _mapped(path: Path) -> bool:
    """Whether any process has it mapped (another program's, then)."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if str(path) in maps.read_text():
                return True
    return False
