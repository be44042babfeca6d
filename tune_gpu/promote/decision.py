"""What becomes of a promotion, decided from the gate's conditions and from what was written before. Nothing is done here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.promote.gate import Condition

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """A condition does not hold: nothing is written or installed."""

    unmet: tuple[str, ...]


@dataclass(frozen=True)
class SoakFirst:
    """Everything that is known holds, but nothing shows that the winner was ever soaked."""


@dataclass(frozen=True)
class Soaked:
    """The winner has just been soaked: it is written for review."""


@dataclass(frozen=True)
class AlreadyWritten:
    """It was written and soaked before, and nothing has changed since."""

    manifest: Manifest


@dataclass(frozen=True)
class Outdated:
    """It was written and soaked before, but other files are installed now: the review is written anew, without another soak."""

    manifest: Manifest


@dataclass(frozen=True)
class Reviewed:
    """It is exactly what was reviewed: it is installed."""

    manifest: Manifest


Decision = Refused | SoakFirst | Soaked | AlreadyWritten | Outdated | Reviewed


def decide(
    conditions: Sequence[Condition], *, soaked: bool, apply: bool, written: Callable[[], Manifest | None], installed: Callable[[], Mapping[str, str | None]]
) -> Decision:
    """Decide what becomes of a promotion.

    Args:
        conditions: what the gate found; with the soak's if it was soaked.
        soaked: whether the soak is among the conditions.
        apply: whether it is to be installed.
        written: returns the manifest of what was written before, or None if that does not count. For `apply` it never returns None, but
            raises UserError. Called only if every condition holds.
        installed: returns destination -> hash of what is installed now.
    """
    if unmet := tuple(condition.name for condition in conditions if not condition.holds):
        return Refused(unmet)
    if soaked:
        return Soaked()
    manifest = written()
    if manifest is None:
        return SoakFirst()
    if apply:
        return Reviewed(manifest)
    return AlreadyWritten(manifest) if manifest.get("before") == installed() else Outdated(manifest)
