"""What a caller hears: the parts of an answer one after another, each as soon as it is there and the part before it has been played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST_STALL_S = 0.02
"""A shorter gap is none that a caller hears."""


@dataclass(frozen=True)
class Part:
    """A sentence of an answer as audio, or as text that is read. Times are of the monotonic clock, in seconds."""

    ready: float
    """When its first audio was there."""
    complete: float
    """When all of it was there."""
    seconds: float
    """How long it plays."""


@dataclass(frozen=True)
class Playback:
    """The playback of an answer."""

    starts: float
    ends: float
    stalls_s: tuple[float, ...]
    """Pauses in which nothing was there to be played."""


def play(parts: Sequence[Part], until: float | None = None) -> Playback | None:
    """Return how the parts are heard, or None without one. Parts that stream slower than they play stall as well.

    Args:
        parts: in their order.
        until: when the caller stops listening; None for the end.
    """
    if not parts:
        return None
    starts = ends = parts[0].ready
    stalls: list[float] = []
    for part in parts:
        begins = max(ends, part.ready)
        over = max(begins + part.seconds, part.complete)
        for at, stall in ((ends, begins - ends), (begins + part.seconds, over - begins - part.seconds)):
            if stall >= SHORTEST_STALL_S and (until is None or at < until):
                stalls.append(stall if until is None else min(stall, until - at))
        ends = over
    return Playback(starts, ends if until is None else min(ends, until), tuple(stalls))
