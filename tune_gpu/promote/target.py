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
        """As `promote.target` names it."""

    def unit_files(self, services: Sequence[DeployedService], install: Path) -> dict[Path, str]:
        """Destination -> content of what makes the target start the services with the files in `install`."""

    def check(self, units: Sequence[str]) -> None:
        """Raises UserError where it could not be used: it is not there, a unit is unknown, or starts after one that follows it here."""

    def check_files(self, files: Mapping[Path, str]) -> None:
        """Raises UserError where the target would not take what is to be installed (destination -> content)."""

    def verify(self, files: Mapping[Path, str]) -> None:
        """What was installed (destination -> content) is what the next start would run. Raises TargetError."""

    def lock_of(self, unit: str) -> Path:
        """A file that whoever changes the unit holds locked, wherever else he installs."""

    def reload(self) -> None:
        """Read changed unit files. Raises TargetError."""

    def start(self, unit: str) -> None:
        """Start; does not wait until it is ready. Raises TargetError."""

    def stop(self, unit: str) -> None:
        """Stop, if it runs; returns when it has ended. Raises TargetError."""

    def is_running(self, unit: str) -> bool:
        """Return whether it runs or is starting. Raises TargetError."""

    def guard(self, command: Sequence[str], units: Sequence[str]) -> None:
        """Have the command run at the next boot, before the units start. Raises OSError."""

    def unguard(self) -> None:
        """Undo `guard`; doing it twice does no harm. Raises OSError."""

    def failure(self, unit: str) -> str | None:
        """Return why it will not become ready; null while it may."""

    def pids(self, unit: str) -> list[int]:
        """Its processes."""

    def log(self, unit: str) -> str | None:
        """Return what it has printed since its start; null where that is not kept here."""

    def shell(self, units: Sequence[str]) -> list[str]:
        """Shell commands that reload and restart the units, in this order (for `rollback.sh`)."""
