"""The phases of a tournament: it searches, then measures a possibly lucky winner again, then is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, ClassVar


class Ended(StrEnum):
    """Why no new configuration is proposed. The values are stored in artifacts and in saved searches."""

    GENERATIONS = "generations"
    SPACE_EXHAUSTED = "space exhausted"


@dataclass(frozen=True)
class Searching:
    """New configurations are proposed."""

    why: ClassVar[None] = None


@dataclass(frozen=True)
class Rechecking:
    """Only the leader may be proposed, one evaluation per generation, so that it does not win by a single evaluation."""

    why: Ended
    since: int
    """The first generation that consists of a repeated measurement."""


@dataclass(frozen=True)
class Over:
    """Nothing is proposed any more."""

    why: Ended
    since: int
    """As in `Rechecking`."""


Phase = Searching | Rechecking | Over


class Closing(StrEnum):
    """What a tournament does once its search has ended."""

    WAIT = auto()
    RECHECK = auto()
    END = auto()


def closing(phase: Rechecking, *, waiting: bool, rechecks: int, limit: int, needs_recheck: Callable[[], bool]) -> Closing:
    """Decide what follows the search.

    Args:
        phase: the tournament's phase.
        waiting: whether results are awaited.
        rechecks: number of repeated measurements so far.
        limit: maximum number of repeated measurements.
        needs_recheck: returns whether the leader would win by a single evaluation. Called only if that decides.
    """
    if waiting and phase.why is Ended.SPACE_EXHAUSTED:
        return Closing.WAIT  # a transient failure makes its configuration available again
    if rechecks >= limit:
        return Closing.END
    if waiting:
        return Closing.WAIT
    return Closing.RECHECK if needs_recheck() else Closing.END


def saved(phase: Phase) -> dict[str, Any]:
    """Return the phase as JSON values: `ended_because` once it is over, and `ending` from the end of the search on."""
    return {
        "ended_because": str(phase.why) if isinstance(phase, Over) else None,
        "ending": None if isinstance(phase, Searching) else [str(phase.why), phase.since],
    }


def loaded(state: Mapping[str, Any]) -> Phase:
    """Return the phase from the values of `saved`. Raise ValueError for an unknown reason."""
    if state["ending"] is None:
        return Searching()
    why, since = Ended(state["ending"][0]), int(state["ending"][1])
    return Rechecking(why, since) if state["ended_because"] is None else Over(why, since)
