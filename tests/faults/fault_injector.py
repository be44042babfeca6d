"""Waits for a moment in a thread of its own, then breaks something; what it broke can be asked afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tune_gpu.common.process import guard
from tune_gpu.common.process.cgroup import memory_group
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.services.vllm.launch import ForkServer


class FaultInjector:
    """`with FaultInjector(moment, victims, SIGKILL): …`.

    Args:
        moment: asked again and again; true when it has come.
        victims: the processes, asked for at the moment.
        fault: a signal, or whatever is done to each process.
        delay_s: between the moment and the fault.
        one: inject it into one of them, drawn by this generator; null for all.
    """

    def __init__(
        self, moment: Callable[[], bool], victims: Callable[[], Sequence[int]], fault: signal.Signals | Callable[[int], None], delay_s: float = 0.0, one: random.Random | None = None
    ) -> None:
        self._moment, self._victims, self._fault, self._delay_s, self._one = moment, victims, fault, delay_s, one
        self.injected: list[int] = []
        self.at: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FaultInjector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._moment():
                break
            time.sleep(0.005)
        else:
            return
        time.sleep(self._delay_s)
        pids = list(self._victims())
        for pid in [self._one.choice(pids)] if self._one and pids else pids:
            with contextlib.suppress(ProcessLookupError):
                if isinstance(self._fault, signal.Signals):
                    os.kill(pid, self._fault)
                else:
                    self._fault(pid)
                self.injected.append(pid)
        self.at = time.monotonic()


def engine_pids(host: ForkServer) -> list[int]:
    """All processes of the servers that were forked from the host; not what has ended and waits for the guard to reap it."""
    assert host._process is not None
    pids = host._process.pids()
    return [pid for pid in pids if _session(pid) != _session(pids[0]) and start_ticks(pid) is not None]


def engine_log(host: ForkServer) -> str:
    """What the server that is starting has printed."""
    assert host._folder is not None
    return "".join(path.read_text(errors="replace") for path in host._folder.glob("*/vllm.log"))


def below(pid: int) -> list[int]:
    """The process and all below it."""
    return [pid, *guard.descendants(pid)]


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return -1


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """The processes stand still for as long as the block (those that are still there go on after it)."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def no_more_address_space(pid: int) -> None:
    """RLIMIT_AS a little above what the process has now: its next large allocation fails, and it says so."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 32 * 2**20
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def memory_cgroup(mib: int) -> Iterator[Callable[[int], None]]:
    """A cgroup that may use so much; yields what moves a process into it. Skips where this machine lets nobody make one."""
    own = memory_group()  # of version 2 below it, for it counts what befalls its descendants
    first, second = Path("/sys/fs/cgroup/memory"), own.folder if own is not None else Path("/sys/fs/cgroup")
    root, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = root / f"tg-fault-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(mib * 2**20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")

    def take(pid: int) -> None:
        (group / "cgroup.procs").write_text(str(pid))

    try:
        yield take
    finally:
        for _ in range(200):  # empty once its processes have been reaped
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)
