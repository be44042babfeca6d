"""Start vLLM's API server in one of two ways: cold, as a user would, or warm, forked from a process that has imported vLLM."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.places import python_path
from tune_gpu.common.process.managed import ManagedProcess, end_session, session_pids

API_SERVER_MODULE = "vllm.entrypoints.openai.api_server"
_ANSWER_TIMEOUT_S = 10.0
"""Longest wait for the fork server's answer. It only forks and reaps: if it takes longer, it was stopped or has ended."""


@dataclass(frozen=True)
class Launch:
    """One start: vLLM's flags, the whole environment, the cores (None for all), a folder of its own, and a file in it for the output."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cores: Sequence[int] | None
    scratch: Path
    log: Path
    shm: str
    """Prefix of the names of its shared memory, where it can be set."""


def serve_command() -> tuple[str, ...]:
    """Return the command that a user would deploy: `vllm serve`, or the module where the package has another name."""
    try:
        metadata.distribution("vllm")
    except metadata.PackageNotFoundError:
        # The command `vllm` asks for its own distribution's version, which the CPU build has under another name.
        return (sys.executable, "-P", "-m", API_SERVER_MODULE)
    return (str(Path(sys.executable).parent / "vllm"), "serve")


class Launched(Protocol):
    """A server that was started."""

    def exit_code(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def pids(self) -> list[int]:
        """Return the ids of its processes."""

    def stop(self) -> None:
        """End its processes, and return when they have ended."""


def launch_cold(launch: Launch, grace_s: float) -> Launched:
    """Start `python -m vllm…api_server` as a separate process."""
    command = [sys.executable, "-P", "-m", API_SERVER_MODULE, *launch.argv]
    return ManagedProcess(command, log=launch.log, env=launch.env, grace_s=grace_s, cores=launch.cores, scratch=launch.scratch)


class ForkServer:
    """Start servers by fork from `fork_server.py`, which runs from the first start until `close`."""

    def __init__(self, env: Mapping[str, str], *, ready_timeout_s: float = 180.0) -> None:
        self._env = dict(env)
        self._ready_timeout_s = ready_timeout_s
        self._folder: Path | None = None
        self._process: ManagedProcess | None = None
        self._socket: socket.socket | None = None
        self._started = 0.0
        self.import_s: float | None = None
        """Seconds that the imports took, once; None before the first start."""

    def launch(self, launch: Launch, grace_s: float) -> Launched:
        """Fork a server. Raise ServiceError if the fork server cannot be started."""
        self.open()
        reply = self._ask(
            {
                "op": "start",
                "argv": list(launch.argv),
                "env": dict(launch.env),
                "log": str(launch.log),
                "cores": list(launch.cores) if launch.cores else None,
                "shm": f"/{launch.shm}",
            }
        )
        return _ForkedServer(self, int(reply["pid"] or 0), grace_s)

    def prepare(self) -> None:
        """Start the fork server without waiting for its imports, which run while something else is done."""
        if self._process is not None and self._process.exit_code() is None:
            return
        self.close()
        self._started = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="tg-fork-"))
        self._folder = folder
        # The current folder is not searched for modules: the fork server must not import a user's `json.py`.
        command = [sys.executable, "-P", "-m", "tune_gpu.services.vllm.fork_server", str(folder / "control")]
        env = {**self._env, "PYTHONPATH": python_path(self._env.get("PYTHONPATH"))}
        self._process = ManagedProcess(command, log=folder / "fork_server.log", env=env, grace_s=1.0, scratch=folder)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def open(self) -> None:
        """Start the fork server if it does not run, and return when its imports are done. Raise ServiceError if it does not start."""
        if self._socket is not None and self._process is not None and self._process.exit_code() is None:
            return
        self.prepare()
        assert self._process is not None
        assert self._folder is not None
        self._socket = self._connect(self._folder / "control", self._process)
        self.import_s = time.monotonic() - self._started

    def _connect(self, address: Path, process: ManagedProcess) -> socket.socket:
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(address))
                connection.settimeout(_ANSWER_TIMEOUT_S)
                return connection
            except OSError:
                connection.close()
            if process.exit_code() is not None or time.monotonic() - self._started > self._ready_timeout_s:
                log = process.log.read_text(errors="replace").strip().splitlines()
                kind = FailureKind.STARTUP_CRASH if process.exit_code() is not None else FailureKind.STARTUP_TIMEOUT
                self.close()
                raise ServiceError(Failure(kind, "vllm", Phase.START, "the fork server did not start", "\n".join(log[-3:])))
            time.sleep(0.05)

    def scratch(self) -> Path:
        """Start the fork server, and return a new folder for one server inside its own, which its guard removes even if this process is
        killed."""
        self.open()
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _ask(self, request: dict[str, object]) -> dict[str, int | None]:
        assert self._socket is not None
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                chunk = self._socket.recv(65536)
                if not chunk:
                    raise ConnectionResetError("the fork server has ended")
                answer += chunk
        except OSError as error:
            silent = isinstance(error, TimeoutError)
            message = f"the fork server has not answered for {_ANSWER_TIMEOUT_S:g} s" if silent else str(error)
            self.close()  # the exchange is out of step, and its servers end with it
            raise ServiceError(
                Failure(FailureKind.SERVICE_HUNG if silent else FailureKind.SERVICE_LOST, "vllm", Phase.START, message)
            ) from error
        return dict(json.loads(answer))

    def exit_code_of(self, pid: int) -> int | None:
        """Return the exit code of a forked server; 137 if the fork server has ended, because its children die with it."""
        try:
            return self._ask({"op": "poll", "pid": pid})["exit_code"]
        except (ServiceError, AssertionError):
            return 137

    def close(self) -> None:
        """End the fork server and every server that it forked."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _ForkedServer:
    """A server that leads a session of its own below the fork server."""

    def __init__(self, fork_server: ForkServer, pid: int, grace_s: float) -> None:
        self._fork_server, self._pid, self._grace_s = fork_server, pid, grace_s

    def exit_code(self) -> int | None:
        return self._fork_server.exit_code_of(self._pid)

    def pids(self) -> list[int]:
        return session_pids(self._pid)

    def stop(self) -> None:
        end_session(self._pid, self._grace_s)
        self._fork_server.exit_code_of(self._pid)  # lets the fork server reap it
