"""What the traffic of an evaluation made of a service, and which settings it therefore did not exercise. The kinds have the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Use:
    """What one evaluation made of one service. None is unknown, and no rule may take it for little."""

    settings: Any
    """Those of the candidate, an object of the kind's `Settings`."""
    longest_context_tokens: float | None = None
    """The longest prompt together with its answer."""
    requests_at_once: float | None = None
    """Most requests in flight at any time under load: windows and ramp."""
    cache_tokens: float | None = None
    """Size of the KV cache."""
    cache_use_pct: float | None = None
    """Largest share of the cache that running requests, and prefixes that come back, took in a window."""
    callers: float = 0.0
    """Most callers of the ramp, in which the use of the cache is not seen: each may take as much as a whole window did."""
    prefix_hit_pct: float | None = None
    """Share of the prompt tokens that the prefix cache had; None without a prefix cache."""
    preemptions: float | None = None


@dataclass(frozen=True)
class Unexercised:
    """Settings that could not matter, and why."""

    settings: tuple[str, ...]
    """Names as a parameter's target has them after the service (`max_num_seqs`, `extra_args.swap_space`), with `_` for `-`."""
    why: str
    """The observation, for example `longest prompt 41 of 4,096 tokens`."""
    on: str = ""
    """What they could not matter for, for example `the size of the cache`, if they have other effects; empty if they could not matter at all."""


@runtime_checkable
class KnowsExercise(Protocol):
    """A kind that knows which traffic its settings need. A kind without this hook says nothing."""

    def unexercised(self, uses: Sequence[Use]) -> Sequence[Unexercised]:
        """Return what these evaluations of one service did not exercise. `uses` has at least one."""


def greatest(values: Sequence[float | None]) -> float | None:
    """Return the greatest value, or None if one of them is unknown: the unknown one may be greater."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def least(values: Sequence[object]) -> float | None:
    """Return the least of these settings, or None if one of them is no number: the default of the program may be less."""
    known = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return min(known) if known and len(known) == len(values) else None
