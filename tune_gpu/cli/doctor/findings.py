"""The result of one check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Severity of a result."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; a run on this machine needs no action."""
    FAIL = "fail"
    """A run will fail or measure wrongly."""


@dataclass(frozen=True)
class DoctorFinding:
    """The result of one check, printed as one line.

    Raises:
        ValueError: a failure without advice.
    """

    check: str
    level: Level
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.level is Level.FAIL and not self.advice:
            raise ValueError(f"{self.check}: a failure needs advice")

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        return asdict(self)


def ok(check: str, found: str) -> DoctorFinding:
    """Return the result of a check that passed."""
    return DoctorFinding(check, Level.OK, found)


def note(check: str, found: str, advice: str = "") -> DoctorFinding:
    """Return a result that is worth knowing."""
    return DoctorFinding(check, Level.NOTE, found, advice)


def fail(check: str, found: str, advice: str) -> DoctorFinding:
    """Return the result of a check that failed, with advice."""
    return DoctorFinding(check, Level.FAIL, found, advice)
