"""A plain process supervisor as a target, for tests and for machines without systemd.

A unit is a JSON file (command, env file, cores) in a folder. The running process is recorded beside it as `<unit>.pid`, with its log. The
secrets in the install folder are added to the environment of each start. A process outlives the command that started it. Shell scripts
call `python -m tune_gpu.promote.supervisor FOLDER restart|stop UNIT …`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.process.managed import end_session, session_pids, start_ticks
from tune_gpu.promote.env_file import read_env, secrets_beside
from tune_gpu.promote.target import LONGEST_LOG, TargetError
from tune_gpu.services.readiness import wait_until_ready

if TYPE_CHECKING:  # a shell script starts this module, and its imports would take seconds
    from tune_gpu.promote.render import DeployedService

_GRACE_S = 10.0
_RECORD_BYTES = 64
_LAST_BYTES = 2**16


class ProcessSupervisor:
    """Units in a folder.

    Args:
        folder: created when the first unit is installed.
    """

    kind = "process"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Return one JSON file per unit."""
        return {
            self._folder / f"{service.unit}.json": json.dumps(
                {
                    "command": service.command,
                    "env_file": str(install / f"{service.name}.env"),
                    "cores": service.cores,
                    "ready": [service.health_url, service.health_within_s],
                },
                indent=2,
            )
            + "\n"
            for service in services
        }

    def check(self, units: Sequence[str]) -> None:
        """Accept any name as a unit."""

    def check_files(self, files: Mapping[Path, str]) -> None:
        """Accept whatever `unit_files` writes."""

    def verify(self, files: Mapping[Path, str]) -> None:
        """Do nothing, because a start reads exactly those files."""

    def lock_of(self, unit: str) -> Path:
        """Return the path beside the unit's file."""
        return self._folder / f".{unit}.lock"

    def reload(self) -> None:
        """Do nothing, because files are read at each start."""

    def start(self, unit: str) -> None:
        """Start the unit in its own session. Do nothing if it is running or has no file."""
        path = self._folder / f"{unit}.json"
        if not path.exists() or self.is_running(unit):
            return
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
            env_file = Path(spec["env_file"])
            env = os.environ | read_env(env_file) | secrets_beside(env_file)
            cores = ["taskset", "-c", ",".join(map(str, spec["cores"]))] if spec["cores"] else []
            with self._log(unit) as log, self._record(unit).open("r+b") as record:
                self._children[unit] = subprocess.Popen(
                    [*cores, *spec["command"]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                    preexec_fn=lambda: _note_self(record.fileno()),  # a running child is recorded, whatever happens to this process
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, subprocess.SubprocessError) as error:
            raise TargetError(f"{unit} cannot be started: {error}") from error

    def stop(self, unit: str) -> None:
        """End the unit's whole session."""
        pid = self._pid(unit)
        try:
            if pid is not None:
                end_session(pid, _GRACE_S)
        except (OSError, TimeoutError) as error:
            raise TargetError(f"{unit} cannot be stopped: {error}") from error
        if child := self._children.pop(unit, None):
            child.wait()

    def is_running(self, unit: str) -> bool:
        """Return whether the unit's process is running."""
        return self._pid(unit) is not None

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Do nothing, because no unit starts by itself after a power cut. A person runs `promote --recover`."""

    def unguard(self) -> None:
        """Do nothing, as `guard` does nothing."""

    def failure(self, unit: str) -> str | None:
        """Return the last line that an ended process printed, or None while it is running."""
        if child := self._children.get(unit):
            child.poll()
        if self._pid(unit) is not None:
            return None
        lines = [line for line in self._end_of_log(unit).splitlines() if line.strip()]
        return f"{unit} has ended: {lines[-1][:300]}" if lines else f"{unit} is not running"

    def pids(self, unit: str) -> list[int]:
        """Return the processes of the unit's session."""
        pid = self._pid(unit)
        return [] if pid is None else session_pids(pid)

    def log(self, unit: str) -> str | None:
        """Return the beginning of the unit's log. Each start overwrites the log."""
        try:
            with (self._folder / f"{unit}.log").open("rb") as log:
                return log.read(LONGEST_LOG).decode(errors="replace")
        except OSError:
            return None

    def _end_of_log(self, unit: str) -> str:
        """Return the end of a service's log. The whole log might fill the memory that a rollback needs."""
        try:
            with (self._folder / f"{unit}.log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
                return log.read(_LAST_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def shell(self, units: Sequence[str]) -> list[str]:
        """Return a command that runs this module. It uses -P, because the current folder may contain somebody else's modules."""
        command = [sys.executable, "-P", "-m", "tune_gpu.promote.supervisor", str(self._folder), "restart", *units]
        return [" ".join(map(shlex.quote, command))]

    def await_ready(self, unit: str) -> bool:
        """Wait until the unit answers, and return whether it does. Do not wait for a unit of an earlier version, which has no address."""
        try:
            url, within_s = json.loads((self._folder / f"{unit}.json").read_text(encoding="utf-8"))["ready"]
        except (OSError, ValueError, KeyError, TypeError):
            return True
        return wait_until_ready(str(url), float(within_s), lambda: self._pid(unit) is not None)

    def _record(self, unit: str) -> Path:
        """Return the file with the process id. Its size never changes after the first start, so it can be overwritten on a full disk."""
        path = self._folder / f"{unit}.pid"
        if not path.exists() or path.stat().st_size < _RECORD_BYTES:
            write_whole(path, " " * _RECORD_BYTES)
        return path

    def _log(self, unit: str) -> IO[bytes]:
        try:
            return (self._folder / f"{unit}.log").open("wb")
        except OSError:  # on a full disk, a service without a log is better than none
            return open(os.devnull, "wb")

    def _pid(self, unit: str) -> int | None:
        """Return the id of the session's leader if that same process is still running, else None."""
        try:
            known = json.loads((self._folder / f"{unit}.pid").read_text(encoding="utf-8"))
            pid, ticks = int(known["pid"]), known["start_ticks"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if ticks is not None and start_ticks(pid) == ticks else None


def _note_self(handle: int) -> None:
    """Record the process id in the child, before it becomes the service. If promote is killed right after the start, the process is still
    known."""
    record = json.dumps({"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())})
    os.pwrite(handle, record.ljust(_RECORD_BYTES).encode(), 0)


def main(arguments: list[str]) -> int:
    """Run the actions that a shell script asks for, as the module's docstring says."""
    folder, action, *units = arguments
    supervisor = ProcessSupervisor(Path(folder))
    for unit in reversed(units):
        supervisor.stop(unit)
    for unit in units if action == "restart" else []:
        supervisor.start(unit)
        if unit != units[-1]:
            supervisor.await_ready(unit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
