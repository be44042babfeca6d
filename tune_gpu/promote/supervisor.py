"""A plain process supervisor as a target: for tests, and for boxes without systemd.

A unit is a JSON file (command, env file, cores) in its folder; what runs is beside it as `<unit>.pid`, with its log. The secrets in the
install folder are added to the environment of each start. A process outlives the command that started it. `python -m tune_gpu.promote.supervisor FOLDER restart|stop UNIT …` is for shells.
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

if TYPE_CHECKING:  # for shells it must start at once
    from tune_gpu.promote.render import DeployedService

_GRACE_S = 10.0
_RECORD_BYTES = 64
_LAST_BYTES = 2**16


class ProcessSupervisor:
    """Units in a folder.

    Args:
        folder: made when the first unit is installed.
    """

    kind = "process"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Return a JSON file a unit."""
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
        """Do nothing: a start reads exactly those files."""

    def lock_of(self, unit: str) -> Path:
        """Return the path beside the unit's file."""
        return self._folder / f".{unit}.lock"

    def reload(self) -> None:
        """Do nothing: files are read at each start."""

    def start(self, unit: str) -> None:
        """Start the unit in a session of its own. A unit that runs, or has no file, is not started."""
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
                    preexec_fn=lambda: _note_self(record.fileno()),  # whatever happens to this process, a child that runs is known
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
        """Return whether its process runs."""
        return self._pid(unit) is not None

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Do nothing: no unit starts by itself after a power cut. A person runs `promote --recover`."""

    def unguard(self) -> None:
        """Do nothing: see `guard`."""

    def failure(self, unit: str) -> str | None:
        """Return the last line of a process that has ended, or None while it runs."""
        if child := self._children.get(unit):
            child.poll()
        if self._pid(unit) is not None:
            return None
        lines = [line for line in self._end_of_log(unit).splitlines() if line.strip()]
        return f"{unit} has ended: {lines[-1][:300]}" if lines else f"{unit} does not run"

    def pids(self, unit: str) -> list[int]:
        """Return the processes of its session."""
        pid = self._pid(unit)
        return [] if pid is None else session_pids(pid)

    def log(self, unit: str) -> str | None:
        """Return the beginning of its log, which each start begins anew."""
        try:
            with (self._folder / f"{unit}.log").open("rb") as log:
                return log.read(LONGEST_LOG).decode(errors="replace")
        except OSError:
            return None

    def _end_of_log(self, unit: str) -> str:
        """Return what a service has written last: the whole may fill the memory that a rollback needs."""
        try:
            with (self._folder / f"{unit}.log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
                return log.read(_LAST_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def shell(self, units: Sequence[str]) -> list[str]:
        """Return a call of this module as a program; -P, because the folder where the script is run may hold modules of others."""
        command = [sys.executable, "-P", "-m", "tune_gpu.promote.supervisor", str(self._folder), "restart", *units]
        return [" ".join(map(shlex.quote, command))]

    def await_ready(self, unit: str) -> bool:
        """Wait until the unit answers; return whether it does. A unit of an earlier version has no address, and is not waited for."""
        try:
            url, within_s = json.loads((self._folder / f"{unit}.json").read_text(encoding="utf-8"))["ready"]
        except (OSError, ValueError, KeyError, TypeError):
            return True
        return wait_until_ready(str(url), float(within_s), lambda: self._pid(unit) is not None)

    def _record(self, unit: str) -> Path:
        """Return the file that holds the pid. It keeps its size from the first start on: a full disk has room for what is written over."""
        path = self._folder / f"{unit}.pid"
        if not path.exists() or path.stat().st_size < _RECORD_BYTES:
            write_whole(path, " " * _RECORD_BYTES)
        return path

    def _log(self, unit: str) -> IO[bytes]:
        try:
            return (self._folder / f"{unit}.log").open("wb")
        except OSError:  # a full disk; a service without a log is better than none
            return open(os.devnull, "wb")

    def _pid(self, unit: str) -> int | None:
        """Return the id of its leader if that very process still runs, else None."""
        try:
            known = json.loads((self._folder / f"{unit}.pid").read_text(encoding="utf-8"))
            pid, ticks = int(known["pid"]), known["start_ticks"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if ticks is not None and start_ticks(pid) == ticks else None


def _note_self(handle: int) -> None:
    """Record the pid in the child, before it becomes the service: a promote that is killed right after the start leaves no process that
    nobody knows."""
    record = json.dumps({"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())})
    os.pwrite(handle, record.ljust(_RECORD_BYTES).encode(), 0)


def main(arguments: list[str]) -> int:
    """Run the actions of a shell: see the module's text."""
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
