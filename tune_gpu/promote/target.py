"""What a promotion needs of the place it is deployed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tune_gpu.promote.render import DeployedService

LONGEST_LOG = 2**22
"""Bytes of a log that are read; a server prints its settings first."""


class TargetError(RuntimeError):
    """The target did not do what was asked."""


class Target(Protocol):
    """Starts and stops deployed services."""

    @property
    def kind(self) -> str:
        """Return its name in `promote.target`."""

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Return destination -> content of what makes the target start the services with the files in `install`."""

    def check(self, units: Sequence[str]) -> None:
        """Raise UserError if it cannot be used: it is missing, a unit is unknown, or starts after one that follows it here."""

    def check_files(self, files: Mapping[Path, str]) -> None:
        """Raise UserError if the target would not take what is to be installed (destination -> content)."""

    def verify(self, files: Mapping[Path, str]) -> None:
        """Raise TargetError unless the next start would run what was installed (destination -> content)."""

    def lock_of(self, unit: str) -> Path:
        """Return a file that is locked while anybody changes the unit, wherever else they install."""

    def reload(self) -> None:
        """Read changed unit files. Raise TargetError."""

    def start(self, unit: str) -> None:
        """Start a unit without waiting until it is ready. Raise TargetError."""

    def stop(self, unit: str) -> None:
        """Stop a unit, if it runs, and return when it has ended. Raise TargetError."""

    def is_running(self, unit: str) -> bool:
        """Return whether it runs or is starting. Raise TargetError."""

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Make the next boot run the command before the units start. Raise OSError."""

    def unguard(self) -> None:
        """Undo `guard`. A second call does nothing. Raise OSError."""

    def failure(self, unit: str) -> str | None:
        """Return why it will not become ready, or None while it may."""

    def pids(self, unit: str) -> list[int]:
        """Return its processes."""

    def log(self, unit: str) -> str | None:
        """Return what it has printed since its start, or None if that is not kept here."""

    def shell(self, units: Sequence[str]) -> list[str]:
        """Return shell commands that reload and restart the units, in this order (for `rollback.sh`)."""
