"""What an examination of this machine finds, and what a kind of service must know of the machine for its own."""

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


@dataclass(frozen=True)
class Machine:
    """The machine that a kind of service is examined on."""

    device: str
    """`cuda` or `cpu`: where the services would run."""
    cuda: tuple[int, int] | None = None
    """The newest CUDA version that the driver supports; None without a card, or if the driver does not report one."""

    @property
    def driver_text(self) -> str:
        """Return in words which CUDA the driver supports."""
        return "does not report its CUDA version" if self.cuda is None else f"runs CUDA up to {self.cuda[0]}.{self.cuda[1]}"
