"""The data of a comparison: voice turns by arrival, in replicates. A replicate is one deployment of one arm.

Within a round every arm gets the same traffic, so the n-th turn of one arm is paired with the n-th of another: the same clip, due at the
same moment. Turns of sessions, which are due when the answer before them was heard, are paired by their places. Between rounds the traffic changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.metrics import PAIR

_WORD_ERRORS, _WORDS = "word_errors", "words"
_OWN = (_WORD_ERRORS, _WORDS, "error", "clip", "place")
"""Keys of a turn's line that are not metrics."""


@dataclass(frozen=True)
class Turn:
    """One voice turn.

    Attributes:
        values: the catalogue's metrics of this turn by their keys in a comparison; None where the turn failed. In a space that names its services
            they hold the recognition errors and words of each service that transcribes, too (`errors_key`, `words_key`).
        word_errors: recognition errors of the default pair.
        words: of the reference.
        error: why it failed.
        clip: name of the utterance; None in old artifacts.
        place: its session and its number in it; None for a turn that belongs to no session.
    """

    values: Mapping[str, float | None] = field(default_factory=dict)
    word_errors: int | None = None
    words: int | None = None
    error: str | None = None
    clip: str | None = None
    place: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the turn as a line of the artifacts has it."""
        line = {**self.values, _WORD_ERRORS: self.word_errors, _WORDS: self.words, "error": self.error, "clip": self.clip}
        return line if self.place is None else line | {"place": self.place}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Turn:
        """Return the turn of such a line. Every number that is not of the turn itself is the value of a metric."""
        values = {key: value for key, value in line.items() if key not in _OWN and (value is None or isinstance(value, (int, float)))}
        return cls(values, line.get(_WORD_ERRORS), line.get(_WORDS), line.get("error"), line.get("clip"), line.get("place"))

    def errors_and_words(self, service: str = "") -> tuple[float | None, float | None]:
        """Return the recognition errors and the words of the reference: of the default pair, or of a service of another space."""
        if not service:
            return self.word_errors, self.words
        return self.values.get(errors_key(service)), self.values.get(words_key(service))


def errors_key(service: str) -> str:
    """Return the key of a service's recognition errors in a turn."""
    return f"{service}.{_WORD_ERRORS}"


def words_key(service: str) -> str:
    """Return the key of the words of a service's reference in a turn."""
    return f"{service}.{_WORDS}"


def ended_early_key(service: str) -> str:
    """Return the key of a turn whose answer the service's model ended before the requested length; missing in any other turn."""
    return f"{service}.ended_early"


def turn_metrics(catalogue: Catalogue = PAIR) -> list[Metric]:
    """Return the metrics whose values a comparison keeps of each turn, in the order of its lines."""
    return [metric for metric in catalogue.compared() if metric.of_turn]


@dataclass(frozen=True)
class Replicate:
    """One deployment of one arm under one round's traffic. A failed one has no turns, and `failure` has the reason."""

    arm: str
    round: int
    turns: tuple[Turn, ...] = ()
    capacity: float | None = None
    """Simultaneous callers, with a fraction (`capacity_continuous`); None if it was not measured."""
    fitness: float | None = None
    utilization_pct: float | None = None
    oom_events: int = 0
    service_memory_mib: Mapping[str, float | None] = field(default_factory=dict)
    """None for a service whose memory the device does not report."""
    wall_s: float = 0.0
    failure: Mapping[str, Any] | None = None
    capacity_at_ceiling: bool = False
    """The ramp ended before a step failed: the capacity is at least this."""

    def as_dict(self) -> dict[str, Any]:
        """Return the replicate as a line of the artifacts has it."""
        return asdict(replace(self, turns=())) | {"turns": [turn.as_dict() for turn in self.turns]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Replicate:
        """Return the replicate of such a line; unknown fields are ignored. Raise KeyError or TypeError if it is not a replicate."""
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        turns = tuple(map(Turn.from_dict, content["turns"]))
        return cls(**{**known, "turns": turns})


@dataclass(frozen=True)
class Pair:
    """One round of two arms: the unit that is resampled."""

    ours: Replicate
    theirs: Replicate


def turns_of(pair: Pair) -> list[tuple[Turn, Turn]]:
    """Return the turns of both arms in pairs: by their places in sessions, of which a slower arm reaches fewer, or else by arrival."""
    theirs = {turn.place: turn for turn in pair.theirs.turns}
    if None in theirs:
        return list(zip(pair.ours.turns, pair.theirs.turns, strict=False))
    return [(turn, theirs[turn.place]) for turn in pair.ours.turns if turn.place in theirs]


def pairs_of(replicates: list[Replicate], ours: str, theirs: str) -> list[Pair]:
    """Return the rounds in which both arms were measured, in order."""
    measured = {(replicate.arm, replicate.round): replicate for replicate in replicates if replicate.failure is None}
    rounds = sorted({replicate.round for replicate in replicates})
    return [Pair(measured[ours, n], measured[theirs, n]) for n in rounds if (ours, n) in measured and (theirs, n) in measured]
