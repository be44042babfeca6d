"""Whatever is started can be ended, and ends with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tune_gpu.common.process.managed import ManagedProcess, kill_and_wait, start_ticks

FAMILY = textwrap.dedent(
    """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], start_new_session=True)
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
    """
)


def family(log: Path) -> ManagedProcess:
    """A program with a child in a session of its own (as a daemon would be); returns once both are up."""
    process = ManagedProcess([sys.executable, "-c", FAMILY], log=log, env=dict(os.environ), grace_s=0.2)
    while not log.exists() or len(log.read_text().split()) < 3:
        assert process.exit_code() is None
    return process


def members(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().split() if word.isdigit()]


def all_gone(pids: list[int]) -> bool:
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    psutil.wait_procs(left, timeout=20)
    return all(start_ticks(pid) is None for pid in pids)


def test_stop_ends_the_whole_family_even_a_child_in_its_own_session(tmp_path: Path) -> None:
    process = family(tmp_path / "log")
    pids = members(tmp_path / "log")
    process.stop()
    assert all(start_ticks(pid) is None for pid in pids)
    process.stop()


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    process = ManagedProcess([sys.executable, "-c", code], log=tmp_path / "log", env=dict(os.environ), grace_s=0.2)
    while "deaf" not in (tmp_path / "log").read_text():
        assert process.exit_code() is None
    pids = process.pids()
    process.stop()
    assert pids
    assert all(start_ticks(pid) is None for pid in pids)


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that owns a family, and the id of the guard."""
    owner_code = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path.cwd())!r})
        from pathlib import Path
        from tests.unit.common.test_process import family
        process = family(Path({str(tmp_path / "log")!r}))
        print(process.pid, flush=True)
        import time; time.sleep(600)
        """
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    yield owner, int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_family_ends_when_its_owner_is_killed(tmp_path: Path, owned: tuple[subprocess.Popen[str], int], number: signal.Signals) -> None:
    owner, guard = owned
    owner.send_signal(number)
    owner.wait()
    assert all_gone([*members(tmp_path / "log"), guard])


def test_the_family_ends_when_owner_and_guard_are_killed_at_once(tmp_path: Path, owned: tuple[subprocess.Popen[str], int]) -> None:
    """As Ray does with a worker's children when the worker ends."""
    owner, guard = owned
    os.kill(guard, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert all_gone([*members(tmp_path / "log"), guard])


def test_a_killed_guard_takes_the_program_and_stop_clears_the_rest(tmp_path: Path) -> None:
    process = family(tmp_path / "log")
    pids = members(tmp_path / "log")
    tree = process.pids()
    os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pids[0])] if psutil.pid_exists(pids[0]) else [], timeout=20)
    assert start_ticks(pids[0]) is None, "the program dies with its guard (parent-death signal)"
    kill_and_wait(tree)
    process.stop()


def test_the_exit_code_is_the_programs(tmp_path: Path) -> None:
    for code, expected in (("raise SystemExit(3)", 3), ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV)):
        process = ManagedProcess([sys.executable, "-c", code], log=tmp_path / "log", env=dict(os.environ))
        while process.exit_code() is None:
            pass
        assert process.exit_code() == expected


def test_children_that_a_program_leaves_behind_are_ended_with_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600'], start_new_session=True); print(p.pid, flush=True)"
    process = ManagedProcess([sys.executable, "-c", code], log=tmp_path / "log", env=dict(os.environ))
    while process.exit_code() is None:
        pass
    assert all_gone(members(tmp_path / "log"))
