"""systemd as a target: a drop-in for each unit, and `systemctl`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.process.guard import descendants
from tune_gpu.promote import loaded_units, recovery_unit
from tune_gpu.promote.env_file import SECRETS
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.target import LONGEST_LOG, TargetError

DROP_IN = "50-tune-gpu.conf"
_JOURNALCTL = "journalctl"
_TIMEOUT_S = 120.0
_LONGER_S = 30.0
"""Extra seconds for a start beyond the wait in it, because systemd ends a unit whose start takes too long."""


class Systemd:
    """Existing systemd units. A drop-in gives each its new command line.

    Args:
        folder: the folder of units (`/etc/systemd/system`).
        systemctl: the program.
    """

    kind = "systemd"

    def __init__(self, folder: Path, systemctl: str = "systemctl") -> None:
        self._folder, self._systemctl = folder, systemctl

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Return one drop-in per unit. Each service starts after those before it are ready, because one that reserves memory takes its share of
        what is left."""
        return {
            self._folder / f"{service.unit}.d" / DROP_IN: _drop_in(
                service, install, [other.unit for other in services[:number]], awaited=number + 1 < len(services)
            )
            for number, service in enumerate(services)
        }

    def check(self, units: Sequence[str]) -> None:
        """Raise UserError if systemctl is missing, a unit is unknown, or the units would wait for each other."""
        if shutil.which(self._systemctl) is None:
            raise UserError(f"promote.target=systemd: there is no {self._systemctl} on this machine. Set promote.target=process.")
        for unit in units:
            done = self._run("cat", unit, check=False)
            if done.returncode != 0:
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no such unit"]
                raise UserError(f"promote.target=systemd: unit {unit}: {lines[0].rstrip('.')}. Create it, or set promote.services.NAME.unit to the unit of the service.")
        loaded_units.check_order(units, self._show)

    def check_files(self, files: Mapping[Path, str]) -> None:
        """Raise UserError for errors that `systemd-analyze verify` finds in the files."""
        loaded_units.analyze(self._folder, _drop_ins(files))

    def verify(self, files: Mapping[Path, str]) -> None:
        """Raise TargetError if systemd would start anything else than the installed command."""
        self.reload()
        for path, content in _drop_ins(files).items():
            unit = path.parent.name.removesuffix(".d")
            shown = self._show("ExecStart,EnvironmentFiles", [unit])
            loaded_units.check_loaded(unit, path, content, self._run("cat", unit).stdout, shown)

    def lock_of(self, unit: str) -> Path:
        """Return the path beside the unit's drop-in folder. systemd ignores a file with this ending."""
        return self._folder / f".{unit}.tune-gpu-lock"

    def reload(self) -> None:
        """Run `systemctl daemon-reload`."""
        self._run("daemon-reload")

    def start(self, unit: str) -> None:
        """Run `systemctl start --no-block`. `/health` shows when the service is ready."""
        self._run("reset-failed", unit, check=False)
        self._run("start", "--no-block", unit)

    def stop(self, unit: str) -> None:
        """Run `systemctl stop`."""
        self._run("stop", unit)

    def is_running(self, unit: str) -> bool:
        """Return the result of `systemctl is-active`."""
        return self._run("is-active", unit, check=False).stdout.strip() in ("active", "activating", "reloading", "refreshing")

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Install a unit that runs the command at the next boot."""
        recovery_unit.install(self._folder, " ".join(map(_quoted, command)), units)

    def unguard(self) -> None:
        """Remove that unit."""
        recovery_unit.remove(self._folder)

    def failure(self, unit: str) -> str | None:
        """Return systemd's description of a failed unit, or None."""
        state = self._run("is-active", unit, check=False).stdout.strip()
        if state != "failed":
            return None
        shown = self._run("show", "--property=Result,ExecMainStatus", unit, check=False).stdout.split()
        return f"{unit} is failed ({', '.join(shown)})"

    def pids(self, unit: str) -> list[int]:
        """Return the main process and its descendants."""
        main = self._run("show", "--property=MainPID", "--value", unit, check=False).stdout.strip()
        return [int(main), *descendants(int(main))] if main.isdigit() and main != "0" else []

    def log(self, unit: str) -> str | None:
        """Return the journal since the unit's last start."""
        invocation = self._run("show", "--property=InvocationID", "--value", unit, check=False).stdout.strip()
        journal = shutil.which(_JOURNALCTL)
        if journal is None or not re.fullmatch(r"[0-9a-f]{32}", invocation):
            return None
        command = [journal, "--no-pager", "--quiet", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as reading:
            limit = threading.Timer(_TIMEOUT_S, reading.kill)
            limit.start()
            try:
                assert reading.stdout is not None
                return reading.stdout.read(LONGEST_LOG).decode(errors="replace")
            finally:
                limit.cancel()
                reading.kill()

    def shell(self, units: Sequence[str]) -> list[str]:
        """Return the commands of a restart for a shell."""
        command = shlex.quote(self._systemctl)
        named = [shlex.quote(unit) for unit in units]
        return [
            f"{command} daemon-reload",
            f"{command} stop {' '.join(reversed(named))}",
            *(f"{command} start {unit}" for unit in named),
        ]

    def _show(self, properties: str, units: Sequence[str]) -> str:
        return self._run("show", f"--property={properties}", *units).stdout

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [self._systemctl, *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C and a closing terminal signal the whole process group, but a rollback needs this process
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TargetError(f"{' '.join(command)}: {error}") from error
        if check and done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise TargetError(f"{' '.join(command)}: {lines[0]}")
        return done


def _drop_ins(files: Mapping[Path, str]) -> dict[Path, str]:
    return {path: content for path, content in files.items() if path.name == DROP_IN}


def _drop_in(service: DeployedService, install: Path, after: Sequence[str], *, awaited: bool) -> str:
    lines = ["# Written by tune-gpu promote; removed by tune-gpu promote --rollback."]
    lines += ["[Unit]", f"After={' '.join(after)}"] if after else []
    lines += [
        "[Service]",
        f"EnvironmentFile={_no_specifiers(install / f'{service.name}.env')}",
        f"EnvironmentFile=-{_no_specifiers(install / SECRETS)}",
        "ExecStart=",
        f"ExecStart={' '.join(_quoted(part) for part in service.command)}",
    ]
    if awaited:
        # The unit counts as started, and units After= it may start, once this has ended. "-": a service that is late must not keep them from starting.
        wait = (sys.executable, "-P", "-m", "tune_gpu.services.readiness", service.health_url, f"{service.health_within_s:g}")
        lines += [f"ExecStartPost=-{' '.join(_quoted(part) for part in wait)}", f"TimeoutStartSec={service.health_within_s + _LONGER_S:g}"]
    # Emptied first, because systemd would add these cores to the unit's own (systemd.exec(5)), and the service was measured on these only.
    lines += ["CPUAffinity=", f"CPUAffinity={' '.join(map(str, service.cores))}"] if service.cores else []
    return "\n".join(lines) + "\n"


def _quoted(part: str) -> str:
    """Return a word in the syntax of systemd.service(5): specifiers and variables escaped, quoted if it is empty or contains a space."""
    escaped = part.replace("%", "%%").replace("$", "$$")
    quoted = not part or any(c in part for c in " \t\"'\\;")
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"' if quoted else escaped


def _no_specifiers(path: Path) -> str:
    return str(path).replace("%", "%%")
