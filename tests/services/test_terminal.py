"""A run as a person sees it: on a terminal, in Ray's metrics, and stopped with Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launches import QUICK
from tune_gpu.common.process import guard
from tune_gpu.common.process.managed import start_ticks

ROWS, COLUMNS = 45, 150


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.screen = ""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it as it does from a keyboard

        env = os.environ | {"TERM": "xterm-256color"}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, env=env)
        os.close(slave)

    def until(self, pattern: str) -> None:
        """Read on until the pattern has been on the screen."""
        while not re.search(pattern, self.screen):
            if not self._read():
                raise AssertionError(f"{pattern!r} never came: {self.screen[-2000:]}")

    def finish(self) -> int:
        """Read to its end; its exit code."""
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # the other end has been closed
                raise
            data = b""
        self.screen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    started = Terminal(sys.executable, "-m", "tune_gpu.launch", "-v", *QUICK, "ray.dashboard=true", f"run.artifacts_dir={tmp_path}")
    yield started
    started.close()


def exported() -> str:
    """What Ray's nodes on this machine export, found as Prometheus finds it."""
    pages = []
    found = Path(tempfile.gettempdir()).glob("tg-ray-*/ray/prom_metrics_service_discovery.json")
    for group in (group for targets in found for group in json.loads(targets.read_text())):
        for target in group["targets"]:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as reply:
                pages.append(reply.read().decode())
    return "\n".join(pages)


def wait_for_metrics(*patterns: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        page = exported()
        if all(re.search(pattern, page) for pattern in patterns):
            return page
        time.sleep(0.5)  # Ray hands them on every few seconds, and tells nobody
    raise AssertionError(f"not exported: {[pattern for pattern in patterns if not re.search(pattern, page)]}")


def test_a_run_on_a_terminal_shows_a_table_and_stops_at_ctrl_c(terminal: Terminal, tmp_path: Path) -> None:
    """It exports its metrics meanwhile."""
    terminal.until(r"g0-c0.*running")
    assert re.search(r"generation 0, 0 of 6 evaluations", terminal.screen)
    terminal.until(r"generation 0, 1 of 6 evaluations \(1 ok\), \d+ s, about \d+ s left")
    terminal.until(r"g0-c0[^\n]* ok [^\n]*started +0\.\d{4} ± 0\.\d{4}")
    assert re.search(r"g0-c0: start [\d.]+ s \(whisper [\d.]+", terminal.screen), "-v says where the seconds went"
    terminal.until(r"g0-c1[^\n]*running")
    of_first = r'candidate="g0-c0"[^}]*generation="0"[^}]*\}'
    page = wait_for_metrics(
        r"ray_tune_gpu_fitness\{[^}]*" + of_first + r" 0\.\d+",
        r"ray_tune_gpu_evaluations_total\{[^}]*" + of_first + r" 1\.0",
        r'ray_tune_gpu_kv_cache_usage_pct\{[^}]*candidate="g0-c[01]"',  # live: of whoever is under load, or just was
        r'ray_tune_gpu_device_memory_mib\{[^}]*candidate="g0-c[01]"',
    )
    assert "ray_tune_gpu_device_clock_mhz{" not in page, "what was not measured is absent"
    tree = guard.descendants(terminal.process.pid)
    terminal.press_ctrl_c()
    assert terminal.finish() == 130
    assert re.search(r"stopped; what was measured is kept in \S+; resume with: python -m tune_gpu\.launch --resume \d{8}-\d{6}", terminal.screen)
    assert "Traceback" not in terminal.screen
    assert [pid for pid in tree if start_ticks(pid) is not None] == [], "services down"
    (kept,) = tmp_path.glob("spica_gpu_allocation/*/gen_0_candidates.jsonl")
    assert json.loads(kept.read_text().splitlines()[0])["candidate_id"] == "g0-c0"
    assert os.listdir(tmp_path) == ["spica_gpu_allocation"], "an unfinished run names no winner"
    assert list(tmp_path.glob("spica_gpu_allocation/*/ray/*/*/events.out.tfevents.*")), "TensorBoard's files, from Tune's own logger"
