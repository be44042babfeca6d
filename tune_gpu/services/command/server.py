"""Run a candidate's own server by its command, prove that what answers is this server, and end it completely."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.common.process.guard import shared_memory_of
from tune_gpu.common.process.managed import ManagedProcess
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.command.launch import EVALUATION_ONLY, arguments, asks_for_key, command_environment
from tune_gpu.services.command.listeners import listening, owners, reachable, shown
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.services.exposition import gauges_in
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.services.oom import KernelOomWatch
from tune_gpu.services.running import Endpoint
from tune_gpu.services.start_failures import explain_exit, explain_loss

HOST = "127.0.0.1"
_POLL_S = 0.05
_LOOK_EVERY_S = 1.0
"""How often a server that does not answer yet is looked for on other ports."""
_ELSEWHERE_S = 5.0
"""Seconds after which a server that is ready on another port is not expected to open its own."""


@dataclass(frozen=True)
class CommandInfo:
    """Facts of a server that is ready."""

    program: str
    device: str
    start_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as the artifacts have them."""
        return asdict(self)


class CommandServer:
    """One server: `start` it, check its `failure` during a measurement, `stop` it.

    Args:
        name: of the service, for failures.
        settings: of the candidate, checked.
        device: `cuda` or `cpu`.
        port_range: range of its port.
    """

    def __init__(
        self, name: str, settings: CommandSettings, *, device: str, port_range: Sequence[int], choose_port: Callable[[Sequence[int]], int] = free_port
    ) -> None:
        self.settings = settings
        self.port = choose_port(port_range)
        self.endpoint = Endpoint(f"http://{HOST}:{self.port}", uuid.uuid4().hex if asks_for_key(settings) else "", settings.model, settings.ignore_eos, settings.voice)
        self.info: CommandInfo | None = None
        self._name, self._device = name, device
        self._scratch: Path | None = None
        self._process: ManagedProcess | None = None
        self._oom = KernelOomWatch()
        self._shared_memory: set[str] = set()
        self._began = 0.0

    @property
    def start_s(self) -> float | None:
        """Return how long its start took, in seconds, or None before it was ready."""
        return self.info.start_s if self.info else None

    def start(self, abort: Callable[[], str | None] = lambda: None) -> CommandInfo:
        """Start the server, wait until it is ready, and prove its identity.

        Raises:
            ServiceError: it did not start, or `abort` returned a reason; nothing of it is left running.
        """
        started = time.monotonic()
        self._oom, self._began = KernelOomWatch(), time.time()
        command = self._command()
        self._scratch = Path(tempfile.mkdtemp(prefix="tg-"))
        try:
            cores = parse_cores(self.settings.cpu_cores) if self._device == "cpu" else None
            self._process = ManagedProcess(
                command, log=self._scratch / "command.log", env=self.environment(), grace_s=self.settings.stop_grace_s, cores=cores, scratch=self._scratch
            )
            self._wait_until_ready(self._process, started, abort)
            self._prove_identity(self._process)
            self._shared_memory = self._own_shared_memory()
        except BaseException:
            self.stop()
            raise
        self.info = CommandInfo(command[0], self._device, time.monotonic() - started)
        return self.info

    def _command(self) -> list[str]:
        """Return its command line. Raise ServiceError if its program or its port is not to be had."""
        try:
            command = arguments(self._name, self.settings, HOST, self.port)
        except UserError as error:
            raise self._failed(FailureKind.STARTUP_CRASH, str(error)) from error
        try:
            free_port([self.port, self.port])
        except UserError as error:
            message = f"another process took port {self.port} before it started. Try again, which takes another port."
            raise self._failed(FailureKind.PORT_CONFLICT, message) from error
        return command

    def environment(self) -> dict[str, str]:
        """Return its whole environment."""
        base = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray sets it to 1; the settings decide on the threads
        evaluation = dict(zip(EVALUATION_ONLY, (str(self._scratch), "1"), strict=True))
        return base | command_environment(self.settings, self._device, HOST, self.port, self.endpoint.key, evaluation)

    def _wait_until_ready(self, process: ManagedProcess, started: float, abort: Callable[[], str | None]) -> None:
        look_at = started + _LOOK_EVERY_S
        elsewhere_since: float | None = None
        while (answer := self._unhealthy(2.0)) is not None:
            now = time.monotonic()
            self._check_alive(process)
            if reason := abort():
                raise self._failed(FailureKind.SERVICE_LOST, reason)
            if now - started > self.settings.start_timeout_s:
                message = f"not ready {self.settings.start_timeout_s:g} s after its start: {answer}. {self._where_it_listens(process)}"
                raise self._failed(FailureKind.STARTUP_TIMEOUT, message, self._last_line())
            if now >= look_at:
                look_at = now + _LOOK_EVERY_S
                elsewhere = self._ready_elsewhere(process)
                elsewhere_since = None if elsewhere is None else elsewhere_since or now
                if elsewhere_since is not None and now - elsewhere_since >= _ELSEWHERE_S:
                    message = f"it ignores {{port}}: it is ready on {elsewhere}, and nothing listens on port {self.port}, which it was given"
                    raise self._failed(FailureKind.WRONG_SERVER, message, self._last_line())
            time.sleep(_POLL_S)

    def _check_alive(self, process: ManagedProcess) -> None:
        """Raise ServiceError if the program has ended."""
        exit_code = process.exit_code()
        if exit_code is None:
            return
        found = self._oom.explain(explain_exit(self._name, self.log(), exit_code))
        if exit_code == 0 and found.kind is FailureKind.STARTUP_CRASH:
            found = replace(found, message=f"{found.message}. Its command must stay in the foreground while the server runs.")
        raise ServiceError(found)

    def _ready_elsewhere(self, process: ManagedProcess) -> str | None:
        """Return another address at which the server is ready while nothing listens on its own port, or None."""
        open_at = listening(process.pids())
        if any(port == self.port for _, port in open_at):
            return None
        for address, port in sorted(open_at):
            where = shown(reachable(address), port)
            with contextlib.suppress(NoAnswer):
                if _is_ready(get(f"http://{where}{self.settings.health}", self.endpoint.key, 1.0)[0]):
                    return where
        return None

    def _where_it_listens(self, process: ManagedProcess) -> str:
        open_at = sorted(shown(address, port) for address, port in listening(process.pids()))
        return f"It listens on {', '.join(open_at)}." if open_at else "It listens on no port."

    def _prove_identity(self, process: ManagedProcess) -> None:
        """Raise ServiceError if a connection to the port may reach a process that the command did not start."""
        ours = set(process.pids())
        found = owners(self.port)
        ours.update(process.pids())  # a worker that was forked in between is ours, too
        if found and found <= ours:
            return
        self._check_alive(process)
        if "ddress already in use" in self.log():
            raise ServiceError(explain_exit(self._name, self.log(), None))
        others = ", ".join("another user's process" if pid is None else f"process {pid}" for pid in sorted(found - ours, key=str)) or "no process"
        message = f"{others} answers on port {self.port}, not the command that was started. It must serve the port itself, not through a daemon."
        raise self._failed(FailureKind.WRONG_SERVER, message)

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured, or None while it runs."""
        if self._process is None:
            return Failure(FailureKind.SERVICE_LOST, self._name, Phase.LOAD, "it is not running")
        exit_code = self._process.exit_code()
        return None if exit_code is None else self._oom.explain(explain_loss(self._name, self.log(), exit_code))

    def healthy(self, timeout_s: float) -> bool:
        """Return True if its health check answers with success within the time-out."""
        return self._unhealthy(timeout_s) is None

    def _unhealthy(self, timeout_s: float) -> str | None:
        """Return what its health check answers instead of success, or None if it is well."""
        try:
            status, _ = get(self.endpoint.url + self.settings.health, self.endpoint.key, timeout_s)
        except NoAnswer as error:
            return str(error)
        return None if _is_ready(status) else f"{self.settings.health} answers with status {status}"

    def gauges(self) -> dict[str, float]:
        """Return its readings and counters (`gauges_in`); empty if it has no page of metrics or does not answer at once."""
        if self.settings.metrics is not None:
            with contextlib.suppress(NoAnswer, ValueError):
                status, page = get(self.endpoint.url + self.settings.metrics, self.endpoint.key, 0.5)
                return gauges_in(page.decode(errors="replace")) if status == 200 else {}
        return {}

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        return self._process.pids() if self._process else []

    def log(self) -> str:
        """Return its output."""
        path = self._scratch / "command.log" if self._scratch else None
        return path.read_text(errors="replace") if path and path.exists() else ""

    def stop(self) -> None:
        """End it, and return when its processes have ended. A second call does nothing."""
        if self._process is not None:
            self._shared_memory |= self._own_shared_memory()
            self._process.stop()
            self._process = None
        for path in self._shared_memory:  # a killed server could not unlink its own
            Path(path).unlink(missing_ok=True)
        self._shared_memory = set()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _own_shared_memory(self) -> set[str]:
        """Return the files of shared memory that it has mapped, without older ones: those are somebody else's."""
        return shared_memory_of(self.pids(), self._began)

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.log().splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""

    def _failed(self, kind: FailureKind, message: str, evidence: str = "") -> ServiceError:
        return ServiceError(Failure(kind, self._name, Phase.START, message, evidence))


def _is_ready(status: int) -> bool:
    return 200 <= status < 300
