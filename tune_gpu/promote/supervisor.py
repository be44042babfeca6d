"""A plain process supervisor as a target: for tests, and for boxes without systemd.

A unit is a JSON file (command, env file, cores) in its folder; what runs is beside it as `<unit>.pid`, with its log. A process outlives
the command that started it. `python -m tune_gpu.promote.supervisor FOLDER restart|stop UNIT …` is for shells.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_gpu.promote.target import TargetError
from tune_gpu.services.process import end_session, session_pids, start_ticks
from tune_gpu.services.readiness import wait_until_ready
from tune_gpu.whole_files import write_whole

if TYPE_CHECKING:  # for shells it must start at once
    from tune_gpu.promote.render import Service

_GRACE_S = 10.0


class ProcessSupervisor:
    """Units in a folder.

    Args:
        folder: made when the first unit is installed.
    """

    kind = "process"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def unit_files(self, services: Sequence[Service], install: Path) -> dict[Path, str]:
        """A JSON file a unit."""
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
        """Any name is a unit."""

    def check_files(self, files: Mapping[Path, str]) -> None:
        """It takes whatever `unit_files` writes."""

    def verify(self, files: Mapping[Path, str]) -> None:
        """A start reads exactly those files."""

    def lock_of(self, unit: str) -> Path:
        """Beside the unit's file."""
        return self._folder / f".{unit}.lock"

    def reload(self) -> None:
        """Files are read at each start."""

    def start(self, unit: str) -> None:
        """In a session of its own. A unit without a file is not there: nothing is started."""
        path = self._folder / f"{unit}.json"
        if not path.exists():
            return
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
            env = os.environ | _read_env(Path(spec["env_file"]))
            cores = ["taskset", "-c", ",".join(map(str, spec["cores"]))] if spec["cores"] else []
            with (self._folder / f"{unit}.log").open("wb") as log:
                child = subprocess.Popen(
                    [*cores, *spec["command"]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{unit} cannot be started: {error}") from error
        self._children[unit] = child
        write_whole(self._folder / f"{unit}.pid", json.dumps({"pid": child.pid, "start_ticks": start_ticks(child.pid)}))

    def stop(self, unit: str) -> None:
        """The whole session."""
        pid = self._pid(unit)
        if pid is not None:
            end_session(pid, _GRACE_S)
        if child := self._children.pop(unit, None):
            child.wait()
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{unit}.pid").unlink()

    def failure(self, unit: str) -> str | None:
        """The last line of a process that has ended."""
        if child := self._children.get(unit):
            child.poll()
        if self._pid(unit) is not None:
            return None
        log = self._folder / f"{unit}.log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
        return f"{unit} has ended: {lines[-1][:300]}" if lines else f"{unit} does not run"

    def pids(self, unit: str) -> list[int]:
        """Of its session."""
        pid = self._pid(unit)
        return [] if pid is None else session_pids(pid)

    def shell(self, units: Sequence[str]) -> list[str]:
        """This module as a program."""
        command = [sys.executable, "-m", "tune_gpu.promote.supervisor", str(self._folder), "restart", *units]
        return [" ".join(map(shlex.quote, command))]

    def await_ready(self, unit: str) -> bool:
        """Until it answers; what was installed by an earlier version does not tell where, and is not waited for."""
        try:
            url, within_s = json.loads((self._folder / f"{unit}.json").read_text(encoding="utf-8"))["ready"]
        except (OSError, ValueError, KeyError, TypeError):
            return True
        return wait_until_ready(str(url), float(within_s), lambda: self._pid(unit) is not None)

    def _pid(self, unit: str) -> int | None:
        """Its leader, if that very process still runs."""
        try:
            known = json.loads((self._folder / f"{unit}.pid").read_text(encoding="utf-8"))
            pid, ticks = int(known["pid"]), known["start_ticks"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if ticks is not None and start_ticks(pid) == ticks else None


def _read_env(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] = "".join(shlex.split(value)) if value else ""
    return found


def main(arguments: list[str]) -> int:
    """See the module's text."""
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
