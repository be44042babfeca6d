"""What is left of an owner that was killed ends; nobody else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tune_gpu.common.process import reaper
from tune_gpu.common.process.reaper import start_ticks

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER)
    yield process
    process.kill()
    process.wait()


def reap(grace_s: float, *named: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", reaper.__file__, str(grace_s), *named], stdin=subprocess.PIPE)


@pytest.mark.parametrize(("grace_s", "word"), [(0.2, b""), (60.0, b"ended")])
def test_the_named_end_after_a_grace_or_at_once_where_the_owner_says_so(sleeper: subprocess.Popen[bytes], grace_s: float, word: bytes) -> None:
    watching = reap(grace_s, f"{sleeper.pid}:{start_ticks(sleeper.pid)}")
    assert sleeper.poll() is None, "as long as the pipe is open nothing happens"
    watching.communicate(word, timeout=20)
    assert sleeper.wait(timeout=20) == -9
    assert watching.returncode == 0


def test_an_owner_that_is_killed_closes_the_pipe_too(sleeper: subprocess.Popen[bytes]) -> None:
    code = (
        "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True); "
        "print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-S", reaper.__file__, "0", f"{sleeper.pid}:{start_ticks(sleeper.pid)}"]
    owner = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    owner.kill()
    owner.communicate()
    assert sleeper.wait(timeout=20) == -9


def test_who_was_given_the_id_later_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    watching = reap(0.0, f"{sleeper.pid}:{(start_ticks(sleeper.pid) or 0) - 1}")
    watching.communicate(timeout=20)
    assert sleeper.poll() is None


def test_where_all_have_ended_there_is_nothing_to_wait_for() -> None:
    gone = subprocess.Popen(SLEEPER)
    name = f"{gone.pid}:{start_ticks(gone.pid)}"
    gone.kill()
    gone.wait()
    watching = reap(60.0, name)
    watching.communicate(timeout=20)
    assert watching.returncode == 0
