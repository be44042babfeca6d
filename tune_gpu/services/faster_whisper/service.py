"""Run a candidate's Whisper as a separate process, so that its memory is its own and its death does not end the trial."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.places import python_path
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.common.process.managed import ManagedProcess
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.environment import CARD_ORDER, layered
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.services.models import resolve_whisper
from tune_gpu.services.oom import KernelOomWatch
from tune_gpu.services.running import Endpoint
from tune_gpu.services.start_failures import explain_exit, explain_loss

SERVER_MODULE = "tune_gpu.services.faster_whisper.server"
_NO_DESCRIPTION = (NoAnswer, ValueError, TypeError, RecursionError)
"""Errors of a request for the server's description. The answer of another program can be anything."""
EVALUATION_ONLY = ("TUNE_GPU_API_KEY", "TMPDIR", "PYTHONUNBUFFERED", "PYTHONPATH")
"""Variables of a measured Whisper that a deployed one does not have. They identify it, and say where its log, its files and this program
are."""
HELD = (*EVALUATION_ONLY, "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Variables that settings cannot replace during a measurement. In a deployment the user's values count."""


def whisper_settings(settings: WhisperSettings, device: str) -> dict[str, str | int | bool]:
    """Return the flags of `whisper_server` for these settings, by their long names, without name and port."""
    cores = parse_cores(settings.cpu_cores) if device == "cpu" else None
    return {
        "model": resolve_whisper(settings.model),
        "device": device,
        "compute-type": settings.compute_type,
        "cpu-threads": settings.cpu_threads or len(cores or os.sched_getaffinity(0)),
        "num-workers": settings.num_workers,
        "beam-size": settings.beam_size,
        "batch-size": settings.batch_size,
        "language": settings.language,
        "vad-filter": settings.vad_filter,
        "condition-on-previous-text": settings.condition_on_previous_text,
    }


def whisper_environment(settings: WhisperSettings, device: str, evaluation: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that a Whisper gets in addition to its host's; `evaluation` as in `vllm_setup.vllm_environment`."""
    # Threads that spin while they wait take the cores from vLLM.
    return layered({"OMP_WAIT_POLICY": "PASSIVE"}, CARD_ORDER if device == "cuda" else {}, settings.env, evaluation)


class WhisperService:
    """faster-whisper in the candidate's size: `start` it, check its `failure` during a measurement, `stop` it."""

    def __init__(
        self,
        settings: WhisperSettings,
        *,
        name: str = "whisper",
        device: str,
        port_range: Sequence[int],
        choose_port: Callable[[Sequence[int]], int] = free_port,
    ) -> None:
        self.settings, self.name = settings, name
        self.api_key = uuid.uuid4().hex
        self.port = choose_port(port_range)
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.endpoint = Endpoint(self.base_url, self.api_key)
        self._name = f"tune-gpu-{uuid.uuid4().hex[:12]}"
        self._device = device
        self._scratch = Path(tempfile.mkdtemp(prefix="tg-"))
        self._process: ManagedProcess | None = None
        self._oom = KernelOomWatch()
        self.start_s: float | None = None
        self.info: dict[str, Any] | None = None

    def command(self) -> list[str]:
        """Return the service's command line."""
        flags: list[str] = []
        for name, value in whisper_settings(self.settings, self._device).items():
            if value is True:
                flags.append(f"--{name}")
            elif value is not False:
                flags += [f"--{name}", str(value)]
        ours = ["--name", self._name, "--host", "127.0.0.1", "--port", str(self.port)]  # the parser takes the last of two
        return [sys.executable, "-P", "-m", SERVER_MODULE, *flags, *ours]

    def environment(self) -> dict[str, str]:
        """Return the service's whole environment."""
        # Ray sets it to 1; the settings decide on the threads.
        base = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        path = python_path(self.settings.env.get("PYTHONPATH") or base.get("PYTHONPATH"))
        evaluation = dict(zip(EVALUATION_ONLY, (self.api_key, str(self._scratch), "1", path), strict=True))
        return base | whisper_environment(self.settings, self._device, evaluation)

    def start(self, abort: Callable[[], str | None] = lambda: None) -> dict[str, Any]:
        """Start it, wait until its model is loaded on the device asked for, and return its description.

        Raises:
            ServiceError: it did not start, or `abort` returned a reason; nothing of it is left running.
        """
        started = time.monotonic()
        cores = parse_cores(self.settings.cpu_cores) if self._device == "cpu" else None
        env = self.environment()
        try:
            self._process = ManagedProcess(self.command(), log=self._scratch / "whisper.log", env=env, grace_s=3.0, cores=cores, scratch=self._scratch)
            description = self._wait_until_ready(started, abort)
            if description.get("device") != self._device:
                message = f"device={self._device}: the service runs on {description.get('device')}"
                raise ServiceError(Failure(FailureKind.WRONG_DEVICE, self.name, Phase.START, message))
        except BaseException:
            self.stop()
            raise
        self.start_s, self.info = time.monotonic() - started, description
        return description

    def _wait_until_ready(self, started: float, abort: Callable[[], str | None]) -> dict[str, Any]:
        assert self._process is not None
        while True:
            with contextlib.suppress(*_NO_DESCRIPTION):
                description = self._health(timeout_s=2.0)
                if description.get("name") != self._name:
                    message = f"another service than the one that was started answers on port {self.port}"
                    raise ServiceError(Failure(FailureKind.WRONG_SERVER, self.name, Phase.START, message))
                return description
            exit_code = self._process.exit_code()
            if exit_code is not None:
                raise ServiceError(self._oom.explain(explain_exit(self.name, self.log(), exit_code)))
            if reason := abort():
                raise ServiceError(Failure(FailureKind.SERVICE_LOST, self.name, Phase.START, reason))
            if time.monotonic() - started > self.settings.start_timeout_s:
                message = f"not ready {self.settings.start_timeout_s:g} s after its start"
                raise ServiceError(Failure(FailureKind.STARTUP_TIMEOUT, self.name, Phase.START, message, self.log()[-500:]))
            time.sleep(0.02)

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured, or None while it runs."""
        exit_code = self._process.exit_code() if self._process else 0
        if exit_code is None:
            return None
        return self._oom.explain(explain_loss(self.name, self.log(), exit_code))

    def healthy(self, timeout_s: float) -> bool:
        """Return True if it answers the health check within the time-out."""
        try:
            self._health(timeout_s)
        except _NO_DESCRIPTION:
            return False
        return True

    def _health(self, timeout_s: float) -> dict[str, Any]:
        status, body = get(f"{self.base_url}/health", self.api_key, timeout_s)
        if status != 200:
            raise NoAnswer(f"/health returned status {status}")
        return dict(json.loads(body))

    def gauges(self) -> dict[str, float]:
        """Return no reading: the server has none."""
        return {}

    def pids(self) -> list[int]:
        """Return the ids of all its processes."""
        return self._process.pids() if self._process else []

    def log(self) -> str:
        """Return its output."""
        path = self._scratch / "whisper.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """End it, and return when its processes have ended. A second call does nothing."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self._scratch, ignore_errors=True)
