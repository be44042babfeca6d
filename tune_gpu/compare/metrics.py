"""What is compared: each metric with its direction, its scale and how it is taken from resampled rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune_gpu.compare.samples import Pair, Turn
from tune_gpu.config.languages import rate_name

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, NDArray[np.int64]], Floats]
"""From values (one row a turn or a round) and counts (resamples x rows) to one number a resample."""

_TURN_FIELDS = {"voice_turn_ms": "turn_ms", "stt_latency_ms": "stt_ms", "llm_latency_ms": "llm_ms", "ttft_ms": "ttft_ms"}


@dataclass(frozen=True)
class Metric:
    """One metric of a comparison.

    Attributes:
        name: as in the artifacts, dotted into a distribution (`voice_turn_ms.p95`).
        higher_is_better: its direction.
        relative: its effect is a ratio and told in per cent; else a difference in its own unit.
        counted_in: of recognition errors, `word` or `character`.
    """

    name: str
    higher_is_better: bool = False
    relative: bool = False
    counted_in: str = "word"

    @property
    def unit(self) -> str:
        """Of the effect."""
        return "%" if self.relative else {"wer": rate_name(self.counted_in), "failed_pct": "% points", "capacity": "callers", "fitness": "fitness"}[self.name]

    def rows(self, pairs: Sequence[Pair]) -> list[tuple[Floats, Floats]]:
        """Per round the paired values of ours and theirs; a turn that failed in either is no pair for a latency."""
        return [self._rows(pair) for pair in pairs]

    def _rows(self, pair: Pair) -> tuple[Floats, Floats]:
        if self.name in ("capacity", "fitness"):
            values = [[getattr(pair.ours, self.name)], [getattr(pair.theirs, self.name)]]
            known = all(value[0] is not None for value in values)
            return _arrays(values[0] if known else [], values[1] if known else [])
        both = list(zip(pair.ours.turns, pair.theirs.turns, strict=False))
        kept = [(a, b) for a, b in map(self._values, both) if a is not None and b is not None]
        return _arrays([a for a, _ in kept], [b for _, b in kept])

    def _values(self, both: tuple[Turn, Turn]) -> tuple[object, object]:
        return self._value(both[0]), self._value(both[1])

    def _value(self, turn: Turn) -> object:
        if self.name == "failed_pct":
            return 100.0 * (turn.error is not None)
        if self.name == "wer":
            return None if turn.words is None else [float(turn.word_errors or 0), float(turn.words)]
        return getattr(turn, _TURN_FIELDS[self.name.partition(".")[0]])

    @property
    def statistic(self) -> Statistic:
        """Return how resamples become numbers."""
        if self.name == "wer":
            return ratio_of_sums
        if self.name in ("failed_pct", "capacity", "fitness"):
            return mean
        percentile = float(self.name.partition(".p")[2])
        return lambda values, counts: percentile_of(values, counts, percentile)


def standard_metrics(latency_percentile: int, counted_in: str = "word") -> list[Metric]:
    """The metrics of every comparison; the first are what a caller feels. Recognition errors are counted in words or characters."""
    at = f"p{latency_percentile}"
    latencies = [f"voice_turn_ms.{at}", "voice_turn_ms.p50", f"stt_latency_ms.{at}", f"llm_latency_ms.{at}", f"ttft_ms.{at}"]
    return [
        *(Metric(name, relative=True) for name in dict.fromkeys(latencies)),
        Metric("wer", counted_in=counted_in),
        Metric("failed_pct"),
        Metric("capacity", higher_is_better=True),
        Metric("fitness", higher_is_better=True),
    ]


def percentile_of(values: Floats, counts: NDArray[np.int64], percentile: float) -> Floats:
    """The percentile of each resample (Hyndman and Fan's type 7, as elsewhere), from how often it holds each value."""
    order = np.argsort(values, kind="stable")
    ordered, upto = values[order], np.cumsum(counts[:, order], axis=1)
    place = (upto[:, -1] - 1) * percentile / 100.0
    below = np.floor(place).astype(np.int64)
    low = ordered[np.argmax(upto > below[:, None], axis=1)]
    above = np.minimum(below + 1, upto[:, -1] - 1)
    high = ordered[np.argmax(upto > above[:, None], axis=1)]
    return np.asarray(low + (high - low) * (place - below))


def ratio_of_sums(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Errors over words of the whole resample (columns: errors, words)."""
    return np.asarray((counts @ values[:, 0]) / (counts @ values[:, 1]))


def mean(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """The mean of each resample."""
    return np.asarray((counts @ values) / counts.sum(axis=1))


def _arrays(ours: Sequence[object], theirs: Sequence[object]) -> tuple[Floats, Floats]:
    return np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
