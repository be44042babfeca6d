"""Decide the next step of a promotion, from the gate's conditions and from what was written before. This module has no side effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.promote.gate import Condition

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """A condition does not hold, so nothing is written or installed."""

    unmet: tuple[str, ...]


@dataclass(frozen=True)
class SoakFirst:
    """All known conditions hold, but nothing shows that the winner passed a soak."""


@dataclass(frozen=True)
class Soaked:
    """The winner has just passed its soak, and is written for review."""


@dataclass(frozen=True)
class AlreadyWritten:
    """The promotion was soaked and written before, and nothing has changed since."""

    manifest: Manifest


@dataclass(frozen=True)
class Outdated:
    """The promotion was soaked and written before, but other files are installed now. The review is written again, without another soak."""

    manifest: Manifest


@dataclass(frozen=True)
class Reviewed:
    """The promotion is exactly what was reviewed, and is installed."""

    manifest: Manifest


Decision = Refused | SoakFirst | Soaked | AlreadyWritten | Outdated | Reviewed


def decide(
    conditions: Sequence[Condition], *, soaked: bool, apply: bool, written: Callable[[], Manifest | None], installed: Callable[[], Mapping[str, str | None]]
) -> Decision:
    """Decide the next step of a promotion.

    Args:
        conditions: the gate's conditions, including the soak's after a soak.
        soaked: whether the soak is among the conditions.
        apply: whether to install the promotion.
        written: returns the manifest of the promotion that was written before, or None if that does not count. With `apply` it raises
            UserError instead of returning None. Called only if every condition holds.
        installed: returns destination -> hash of the file that is installed now.
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
