"""Run NVIDIA's Multi-Process Service for one card, so that processes use it at the same time, each on a part of its multiprocessors.

The daemon runs in the foreground under our guard and in folders of its own, so that it ends with the trial and meets no other daemon of the
machine. Daemon and clients name the card by its UUID, because an index would be counted anew below a daemon that sees one card (NVIDIA's
MPS documentation, "CUDA_VISIBLE_DEVICES"). It has not been tried on a GPU yet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.managed import ManagedProcess

CONTROL = "nvidia-cuda-mps-control"
_READY_S = 15.0
_QUIT_S = 10.0


class MpsDaemon:
    """The daemon of one card: `start` it, give its `environment` to the clients, and `stop` it after they have ended.

    Args:
        card: the UUID of the card (or MIG instance).
    """

    def __init__(self, card: str) -> None:
        self._card = card
        self._folder: Path | None = None
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Start the daemon, and return when clients can connect. Raise ServiceError if it is not installed or does not start."""
        program = shutil.which(CONTROL)
        if program is None:
            raise self._failed(f"{CONTROL} is not installed (it comes with the NVIDIA driver)")
        self._folder = Path(tempfile.mkdtemp(prefix="tg-mps-"))
        env = os.environ | self.environment()
        self._process = ManagedProcess([program, "-f"], log=self._folder / "daemon.log", env=env, grace_s=2.0)
        deadline = time.monotonic() + _READY_S
        while not (self._folder / "control").exists():
            ended = self._process.exit_code()
            if ended is not None or time.monotonic() > deadline:
                last_line = (self._folder / "daemon.log").read_text(errors="replace").strip().splitlines()[-1:]
                self.stop()
                raise self._failed(f"{CONTROL} did not come up (exit code {ended})", "".join(last_line))
            time.sleep(0.02)

    def environment(self, active_thread_pct: float | None = None) -> dict[str, str]:
        """Return the environment of a client that may use this share of the card's multiprocessors, in per cent."""
        assert self._folder is not None
        folder = str(self._folder)
        env = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder, "CUDA_VISIBLE_DEVICES": self._card}
        return env | ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{active_thread_pct:g}"} if active_thread_pct is not None else {})

    def pids(self) -> list[int]:
        """Return the ids of its processes. Its server holds memory on the card, which counts as ours."""
        return self._process.pids() if self._process else []

    def stop(self) -> None:
        """Ask it to quit, and end it. A second call does nothing."""
        if self._process is not None and self._folder is not None:
            if self._process.exit_code() is None:
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run([CONTROL], input=b"quit\n", env=os.environ | self.environment(), timeout=_QUIT_S, check=False, capture_output=True)
            self._process.stop()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @staticmethod
    def _failed(message: str, evidence: str = "") -> ServiceError:
        return ServiceError(Failure(FailureKind.STARTUP_CRASH, "mps", Phase.START, message, evidence))
