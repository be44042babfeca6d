"""What a comparison sees: voice turns in the order of their arrival, in blocks; a block is one deployment of one arm.

Within a round every arm gets the same traffic, so the n-th turn of one arm is paired with the n-th of another: the same clip, due at the
same moment. Between rounds the traffic changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One voice turn. Latencies in milliseconds, null where the turn failed."""

    stt_ms: float | None = None
    ttft_ms: float | None = None
    llm_ms: float | None = None
    turn_ms: float | None = None
    """End of speech to the answer's first token."""
    word_errors: int | None = None
    words: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Block:
    """One deployment of one arm under one round's traffic; without turns where it failed, and then `failure` says why."""

    arm: str
    round: int
    turns: tuple[Turn, ...] = ()
    capacity: float | None = None
    """Simultaneous callers, with a fraction (`capacity_continuous`); null where it was not measured."""
    fitness: float | None = None
    utilization_pct: float | None = None
    oom_events: int = 0
    service_memory_mib: Mapping[str, float | None] = field(default_factory=dict)
    """Null for a service whose memory the device does not report."""
    wall_s: float = 0.0
    failure: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a line of the artifacts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Block:
        """From such a line; fields that are unknown here are passed over. Raises KeyError or TypeError for what is no block."""
        known = {name: line[name] for name in cls.__dataclass_fields__ if name in line}
        turns = tuple(Turn(**{k: turn.get(k) for k in Turn.__dataclass_fields__}) for turn in line["turns"])
        return cls(**{**known, "turns": turns})


@dataclass(frozen=True)
class Pair:
    """One round of two arms: the unit that is resampled."""

    ours: Block
    theirs: Block


def pairs_of(blocks: list[Block], ours: str, theirs: str) -> list[Pair]:
    """The rounds in which both arms were measured, in their order."""
    measured = {(block.arm, block.round): block for block in blocks if block.failure is None}
    rounds = sorted({block.round for block in blocks})
    return [Pair(measured[ours, n], measured[theirs, n]) for n in rounds if (ours, n) in measured and (theirs, n) in measured]
