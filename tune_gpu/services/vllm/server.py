"""Run a candidate's own vLLM server with the flags that would be deployed, prove its identity, and end it completely."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.common.process.guard import shared_memory_of
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.exposition import gauges_in
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.oom import KernelOomWatch
from tune_gpu.services.running import Endpoint
from tune_gpu.services.start_failures import explain_exit, explain_loss
from tune_gpu.services.vllm.info import EngineInfo, read_engine_info
from tune_gpu.services.vllm.launch import ForkServer, Launch, Launched, launch_cold
from tune_gpu.services.vllm.secret_flags import variables_of
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import engine_environment, serve_flags

_STOP_GRACE_S = 8.0


class VllmServer:
    """One engine: `start` it, check its `failure` during a measurement, `stop` it.

    Args:
        settings: the candidate's flags.
        name: of the service, in its failures.
        device: `cuda` or `cpu`.
        port_range: range of its port.
        fork_server: the fork server; None for a cold start.
    """

    def __init__(
        self,
        settings: VllmSettings,
        *,
        name: str = "vllm",
        device: str,
        port_range: Sequence[int],
        fork_server: ForkServer | None = None,
        choose_port: Callable[[Sequence[int]], int] = free_port,
    ) -> None:
        self.settings, self.name = settings, name
        self.served_model_name = f"tune-gpu-{uuid.uuid4().hex[:12]}"
        self.api_key = uuid.uuid4().hex
        self.port = choose_port(port_range)
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.endpoint = Endpoint(self.base_url, self.api_key, self.served_model_name)
        self._device = device
        # A candidate's own variables must be set when Python starts, so such an engine cannot be forked from the fork server.
        self._fork_server = fork_server if not (settings.env or variables_of(settings.extra_args)) else None
        self._scratch: Path | None = None
        self._shm = f"tg{uuid.uuid4().hex[:12]}"
        self._oom = KernelOomWatch()
        self._launched: Launched | None = None
        self._shared_memory: set[str] = set()
        self.info: EngineInfo | None = None

    @property
    def start_s(self) -> float | None:
        """Return how long its start took, in seconds, or None before it was ready."""
        return self.info.start_s if self.info else None

    def arguments(self) -> list[str]:
        """Return the command line of its API server."""
        ours = ["--model", resolve_llm(self.settings.model), "--served-model-name", self.served_model_name]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [*serve_flags(self.settings), *ours, *address]  # the parser takes the last of two

    def start(self, abort: Callable[[], str | None] = lambda: None) -> EngineInfo:
        """Start the server, wait until it is ready, and prove its identity. Raise ServiceError after a failed start; then no process is
        left."""
        started = time.monotonic()
        self._oom = KernelOomWatch()
        self._scratch = self._fork_server.scratch() if self._fork_server else Path(tempfile.mkdtemp(prefix="tg-"))
        env = engine_environment(self.settings, self.api_key, self._device, str(self._scratch))
        launch = Launch(self.arguments(), env, parse_cores(self.settings.cpu_cores) if self._device == "cpu" else None, self._scratch, self._scratch / "vllm.log", self._shm)
        try:
            self._launched = self._fork_server.launch(launch, _STOP_GRACE_S) if self._fork_server else launch_cold(launch, _STOP_GRACE_S)
            self._wait_until_ready(started, abort)
            self._prove_identity()
            self.info = self._read_info(time.monotonic() - started)
            self._shared_memory = shared_memory_of(self.pids())
        except BaseException:
            self.stop()
            raise
        return self.info

    def _wait_until_ready(self, started: float, abort: Callable[[], str | None]) -> None:
        assert self._launched is not None
        while True:
            if self.healthy(timeout_s=2.0):
                return
            exit_code = self._launched.exit_code()
            if exit_code is not None:
                raise ServiceError(self._oom.explain(explain_exit(self.name, self.log(), exit_code)))
            if reason := abort():
                raise ServiceError(Failure(FailureKind.SERVICE_LOST, self.name, Phase.START, reason))
            if time.monotonic() - started > self.settings.start_timeout_s:
                lines = [line for line in self.log().splitlines() if line.strip()] or [""]
                message = f"not ready {self.settings.start_timeout_s:g} s after its start"
                raise ServiceError(Failure(FailureKind.STARTUP_TIMEOUT, self.name, Phase.START, message, lines[-1][:500]))
            time.sleep(0.05)

    def _prove_identity(self) -> None:
        try:
            models = [str(model["id"]) for model in json.loads(self._get("/v1/models"))["data"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            models = [f"({error})"]
        if self.served_model_name not in models:
            assert self._launched is not None
            exit_code = self._launched.exit_code()
            if exit_code is not None or "ddress already in use" in self.log():
                raise ServiceError(explain_exit(self.name, self.log(), exit_code))
            message = f"a server of {', '.join(models)} answers on port {self.port}, not the one that was started"
            raise ServiceError(Failure(FailureKind.WRONG_SERVER, self.name, Phase.START, message))

    def _read_info(self, start_s: float) -> EngineInfo:
        pages = {}
        for path in ("/metrics", "/version"):
            try:
                pages[path] = self._get(path)
            except NoAnswer:  # if it has ended meanwhile, the warm-up finds out
                pages[path] = ""
        return read_engine_info(pages["/metrics"], pages["/version"], start_s=start_s, max_model_len=self.settings.max_model_len)

    def gauges(self) -> dict[str, float]:
        """Return its readings and counters (`gauges_in`); empty if it does not answer at once."""
        with contextlib.suppress(NoAnswer, ValueError):
            return gauges_in(self._get("/metrics", timeout_s=0.5))
        return {}

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured, or None while it runs."""
        if self._launched is None:
            return Failure(FailureKind.SERVICE_LOST, self.name, Phase.LOAD, "it is not running")
        exit_code = self._launched.exit_code()
        if exit_code is None:
            return None
        return self._oom.explain(explain_loss(self.name, self.log(), exit_code))

    def healthy(self, timeout_s: float) -> bool:
        """Return True if its server answers the health check within the time-out."""
        try:
            self._get("/health", timeout_s)
        except NoAnswer:
            return False
        return True

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        return self._launched.pids() if self._launched else []

    def log(self) -> str:
        """Return its output."""
        path = self._scratch / "vllm.log" if self._scratch else None
        return path.read_text(errors="replace") if path and path.exists() else ""

    def stop(self) -> None:
        """End it, and return when its processes have ended. A second call does nothing."""
        if self._launched is not None:
            self._launched.stop()
            self._launched = None
        self._shared_memory |= set(map(str, Path("/dev/shm").glob(f"{self._shm}*")))  # noqa: S108 - Linux names it so
        for path in self._shared_memory:  # a killed engine could not unlink its own
            Path(path).unlink(missing_ok=True)
        self._shared_memory = set()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _get(self, path: str, timeout_s: float = 10.0) -> str:
        status, body = get(self.base_url + path, self.api_key, timeout_s)
        if status != 200:
            raise NoAnswer(f"{path} returned status {status}")
        return body.decode(errors="replace")
