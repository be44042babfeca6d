"""A candidate's own Whisper: a process of its own, so that its memory is its own and its death is not the trial's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tune_gpu.config import WhisperSettings
from tune_gpu.measurement import Failure, FailureKind, Phase, ServiceError
from tune_gpu.services.models import resolve_whisper
from tune_gpu.services.ports import free_port
from tune_gpu.services.process import ManagedProcess
from tune_gpu.services.start_failures import explain_exit
from tune_gpu.services.vllm_server import parse_cores


class WhisperService:
    """faster-whisper in the candidate's size: `start` it, ask its `failure` while it is measured, `stop` it."""

    def __init__(
        self, settings: WhisperSettings, *, device: str, port_range: Sequence[int], choose_port: Callable[[Sequence[int]], int] = free_port
    ) -> None:
        self.settings = settings
        self.api_key = uuid.uuid4().hex
        self.port = choose_port(port_range)
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._name = f"tune-gpu-{uuid.uuid4().hex[:12]}"
        self._device = device
        self._scratch = Path(tempfile.mkdtemp(prefix="tg-"))
        self._process: ManagedProcess | None = None
        self.start_s: float | None = None

    def command(self) -> list[str]:
        """The service's command line."""
        s = self.settings
        cores = parse_cores(s.cpu_cores) if self._device == "cpu" else None
        threads = s.cpu_threads or len(cores or os.sched_getaffinity(0))
        flags = [
            "--model",
            resolve_whisper(s.model),
            "--name",
            self._name,
            "--port",
            str(self.port),
            "--device",
            self._device,
            "--compute-type",
            s.compute_type,
            "--cpu-threads",
            str(threads),
            "--num-workers",
            str(s.num_workers),
            "--beam-size",
            str(s.beam_size),
            "--language",
            s.language,
        ]
        flags += ["--vad-filter"] if s.vad_filter else []
        flags += ["--condition-on-previous-text"] if s.condition_on_previous_text else []
        return [sys.executable, "-P", "-m", "tune_gpu.services.whisper_server", *flags]

    def start(self) -> dict[str, Any]:
        """Start it and wait until its model is loaded on the device asked for; returns what it says of itself.

        Raises ServiceError, with nothing left running.
        """
        started = time.monotonic()
        cores = parse_cores(self.settings.cpu_cores) if self._device == "cpu" else None
        source = str(Path(__file__).resolve().parents[2])
        env = os.environ | {
            "TUNE_GPU_API_KEY": self.api_key,
            "TMPDIR": str(self._scratch),
            "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        }
        env.pop("OMP_NUM_THREADS", None)  # Ray sets it to 1; the threads are the settings'
        env |= dict(self.settings.env)
        try:
            self._process = ManagedProcess(self.command(), log=self._scratch / "whisper.log", env=env, grace_s=3.0, cores=cores)
            description = self._wait_until_ready(started)
            if description.get("device") != self._device:
                message = f"asked for {self._device}, it runs on {description.get('device')}"
                raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "whisper", Phase.START, message))
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - started
        return description

    def _wait_until_ready(self, started: float) -> dict[str, Any]:
        assert self._process is not None
        request = urllib.request.Request(f"{self.base_url}/health", headers={"Authorization": f"Bearer {self.api_key}"})  # noqa: S310
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError, ValueError), urllib.request.urlopen(request, timeout=2.0) as reply:  # noqa: S310
                description = dict(json.loads(reply.read()))
                if description.get("name") != self._name:
                    message = f"port {self.port} is answered by another service than the one that was started"
                    raise ServiceError(Failure(FailureKind.WRONG_SERVER, "whisper", Phase.START, message))
                return description
            exit_code = self._process.exit_code()
            if exit_code is not None:
                raise ServiceError(explain_exit("whisper", self.log(), exit_code))
            if time.monotonic() - started > self.settings.start_timeout_s:
                message = f"not ready {self.settings.start_timeout_s:g} s after its start"
                raise ServiceError(Failure(FailureKind.STARTUP_TIMEOUT, "whisper", Phase.START, message, self.log()[-500:]))
            time.sleep(0.02)

    def failure(self) -> Failure | None:
        """Why it can no longer be measured; null while it runs."""
        exit_code = self._process.exit_code() if self._process else 0
        if exit_code is None:
            return None
        log = self.log()
        kind = FailureKind.OOM if "out of memory" in log.lower() else FailureKind.SERVICE_LOST
        return Failure(kind, "whisper", Phase.LOAD, f"ended with exit code {exit_code} under load", log[-500:])

    def pids(self) -> list[int]:
        """All of its processes."""
        return self._process.pids() if self._process else []

    def log(self) -> str:
        """What it has printed."""
        path = self._scratch / "whisper.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """End it; returns when its processes have gone. Calling it twice does nothing."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self._scratch, ignore_errors=True)
