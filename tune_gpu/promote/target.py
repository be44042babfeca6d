"""The interface to a deployment target, which starts and stops services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tune_gpu.promote.render import DeployedService

LONGEST_LOG = 2**22
"""Number of bytes that are read of a log. A server prints its settings first."""


class TargetError(RuntimeError):
    """The target could not do a step."""


class Target(Protocol):
    """Starts and stops deployed services."""

    @property
    def kind(self) -> str:
        """Return the target's name in `promote.target`."""

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Return destination -> content of the files that make the target start the services with the files in `install`."""

    def check(self, units: Sequence[str]) -> None:
        """Raise UserError if the target cannot be used: it is missing, or a unit is unknown or ordered after a later one."""

    def check_files(self, files: Mapping[Path, str]) -> None:
        """Raise UserError if the target would not accept the files to install (destination -> content)."""

    def verify(self, files: Mapping[Path, str]) -> None:
        """Raise TargetError unless the next start would use the installed files (destination -> content)."""

    def lock_of(self, unit: str) -> Path:
        """Return the lock file for changes to the unit. It is the same for all install folders."""

    def reload(self) -> None:
        """Read changed unit files. Raise TargetError."""

    def start(self, unit: str) -> None:
        """Start a unit without waiting until it is ready. Raise TargetError."""

    def stop(self, unit: str) -> None:
        """Stop a unit, if it is running, and return when it has ended. Raise TargetError."""

    def is_running(self, unit: str) -> bool:
        """Return whether a unit is running or starting. Raise TargetError."""

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Make the next boot run the command before the units start. Raise OSError."""

    def unguard(self) -> None:
        """Undo `guard`. A second call does nothing. Raise OSError."""

    def failure(self, unit: str) -> str | None:
        """Return why a unit will not become ready, or None while it may."""

    def pids(self, unit: str) -> list[int]:
        """Return the processes of a unit."""

    def log(self, unit: str) -> str | None:
        """Return what a unit has printed since its start, or None if its log is not kept here."""

    def shell(self, units: Sequence[str]) -> list[str]:
        """Return shell commands that reload and restart the units, in this order (for `rollback.sh`)."""
