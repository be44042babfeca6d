"""Check how systemd reads units: whether it accepts the files, would run their commands, and can order their starts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.promote.target import TargetError

_ANALYZE = "systemd-analyze"
_TIMEOUT_S = 60.0
_FATAL = ("is not executable", "ordering cycle", "bad unit file setting", "refusing", "failed to")
"""Errors in what systemd-analyze prints about a unit as a whole. Its other lines are advice, also about older files."""
_ARGV = re.compile(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=")

Show = Callable[[str, Sequence[str]], str]
"""Properties and units -> the output of `systemctl show`."""


def analyze(folder: Path, drop_ins: Mapping[Path, str]) -> None:
    """Run `systemd-analyze verify`, if it is installed, before the drop-ins are. Raise UserError with its errors about a drop-in.

    Args:
        folder: the folder of units.
        drop_ins: path below that folder -> content.
    """
    program = shutil.which(_ANALYZE)
    if program is None or not drop_ins:
        return
    with tempfile.TemporaryDirectory(prefix="tune-gpu-units-") as staged:
        for path, content in drop_ins.items():
            place = Path(staged) / path.relative_to(folder)
            place.parent.mkdir()
            place.write_text(content, encoding="utf-8")
        # A drop-in of the same name in an earlier folder wins. The empty entry at the end means systemd's own folders.
        env = {**os.environ, "LC_ALL": "C", "SYSTEMD_UNIT_PATH": f"{staged}:{folder}:", "SYSTEMD_COLORS": "0"}
        units = [path.parent.name.removesuffix(".d") for path in drop_ins]
        try:
            done = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True, timeout=_TIMEOUT_S, env=env)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{_ANALYZE} verify {' '.join(units)}: {error}") from error
    for line in done.stderr.splitlines():
        of_unit = any(line.startswith(f"{unit}: ") for unit in units) and any(word in line.lower() for word in _FATAL)
        if of_unit or line.startswith(f"{staged}/"):
            raise UserError(f"{_ANALYZE} verify: {line.replace(staged, str(folder))}")


def check_loaded(unit: str, path: Path, content: str, cat: str, shown: str) -> None:
    """Raise TargetError if systemd would start anything else than the written command.

    Args:
        unit: the unit.
        path: the drop-in that was written for the unit.
        content: the drop-in's content.
        cat: output of `systemctl cat` for the unit.
        shown: output of `systemctl show` for its ExecStart and EnvironmentFiles.
    """
    if content.strip() not in cat:
        raise TargetError(f"{unit}: systemd does not read {path}, so the unit would run its previous command")
    written = _values(content, "ExecStart")
    wanted = [" ".join(_parts(value)) for value in written if value]
    runs = _ARGV.findall(shown)
    if runs != wanted:
        raise TargetError(f"{unit}: systemd would start {'; '.join(runs) or 'nothing'} instead of {'; '.join(wanted)}: look for another drop-in")
    there = [value.rpartition(" (")[0] for value in _values(shown, "EnvironmentFiles")]
    for file in (value.removeprefix("-").replace("%%", "%") for value in _values(content, "EnvironmentFile")):
        if file not in there:
            raise TargetError(f"{unit}: systemd would not read {file}: look for another drop-in that sets EnvironmentFile=")


def check_order(units: Sequence[str], show: Show) -> None:
    """Raise UserError if the units cannot start in this order: two are names of one unit, or an earlier one already waits for a later
    one."""
    ids = [(_values(show("Id", [unit]), "Id") or [unit])[0] for unit in units]
    for number, unit in enumerate(units):
        for other_id, other in zip(ids[number + 1 :], units[number + 1 :], strict=True):
            if other_id == ids[number]:
                raise UserError(f"promote.target=systemd: {unit} and {other} are names of the same unit. Give each service its own unit.")
            if way := _way(unit, other, show):
                raise UserError(
                    f"promote.target=systemd: {other} must start after {unit}, but the units order {' after '.join(way)}. "
                    f"Remove that After= or Before= from the units."
                )


def _way(start: str, goal: str, show: Show) -> list[str] | None:
    """Return the chain of units by which one unit is ordered after another, or None if it is not."""
    ways, level = {start: [start]}, [start]
    while level and goal not in ways:
        following: list[str] = []
        for unit, after in _after(show("Id,After", level)).items():
            for earlier in after:
                if earlier not in ways:
                    ways[earlier] = [*ways.get(unit, [unit]), earlier]
                    following.append(earlier)
        level = following
    return ways.get(goal)


def _after(shown: str) -> dict[str, list[str]]:
    """Return each unit's After=. `systemctl show` prints one block per unit."""
    blocks = shown.split("\n\n")
    return {unit: " ".join(_values(block, "After")).split() for block in blocks for unit in _values(block, "Id")}


def _values(text: str, setting: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{setting}=")]


def _parts(command: str) -> list[str]:
    """Return a command line of a drop-in as systemd holds it in memory, without quotes and specifiers. Variables are replaced only at the
    start."""
    return [part.replace("%%", "%") for part in shlex.split(command)]
