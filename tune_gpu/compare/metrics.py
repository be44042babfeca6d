"""The metrics of a comparison, each with its direction, its scale and its computation from resampled rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune_gpu.common import metric as declared
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Better, Compared, Statistic
from tune_gpu.compare.samples import Pair, Turn, turns_of
from tune_gpu.config.languages import error_unit, rate_name, spoken_language
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.metrics import PAIR

Floats = NDArray[np.float64]
ResampledStatistic = Callable[[Floats, NDArray[np.int64]], Floats]
"""From values (one row a turn or a round) and counts (resamples x rows) to one number a resample."""


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of the catalogue in a comparison.

    Attributes:
        entry: of the catalogue.
        percentile: of the turns' values, if it is compared by one.
        counted_in: unit of recognition errors, `word` or `character`.
    """

    entry: declared.Metric
    percentile: int | None = None
    counted_in: str = "word"

    @property
    def compared(self) -> Compared:
        """Return how it is compared."""
        return self.entry.compared or Compared()

    @property
    def name(self) -> str:
        """Return its name in the artifacts, with the percentile (`voice_turn_ms.p95`)."""
        return self.entry.compared_name if self.percentile is None else f"{self.entry.compared_name}.p{self.percentile}"

    @property
    def higher_is_better(self) -> bool:
        """Return True if a higher value is better."""
        return self.entry.better is Better.HIGHER

    @property
    def relative(self) -> bool:
        """Return True if its effect is a ratio, in per cent; otherwise it is a difference in the metric's own unit."""
        return self.compared.statistic is Statistic.PERCENTILE

    @property
    def unit(self) -> str:
        """Return the unit of the effect."""
        return rate_name(self.counted_in) if self.entry.counts_errors else self.compared.unit

    def rows(self, pairs: Sequence[Pair]) -> list[tuple[Floats, Floats]]:
        """Return per round the paired values of both arms. A turn that failed in either arm is no pair for a latency."""
        return [self._rows(pair) for pair in pairs]

    def _rows(self, pair: Pair) -> tuple[Floats, Floats]:
        if self.compared.statistic is Statistic.MEAN_OF_ROUNDS:
            values = [[getattr(pair.ours, self.entry.compared_name)], [getattr(pair.theirs, self.entry.compared_name)]]
            # Two lower bounds show neither an order nor equality.
            bounds = bool(self.entry.at_least) and all(getattr(replicate, self.entry.at_least) for replicate in (pair.ours, pair.theirs))
            known = all(value[0] is not None for value in values) and not bounds
            return _arrays(values[0] if known else [], values[1] if known else [])
        kept = [(a, b) for a, b in map(self._values, turns_of(pair)) if a is not None and b is not None]
        return _arrays([a for a, _ in kept], [b for _, b in kept])

    def words_of(self, pairs: Sequence[Pair]) -> tuple[int | None, int | None]:
        """Return how many different words and clips an error rate rests on; None for another metric, or if the clips are not known.

        A repeated clip adds little: the recogniser makes the same errors.
        """
        if self.compared.statistic is not Statistic.ERRORS_PER_WORD:
            return None, None
        both = [(turn, self._errors(turn)[1], self._errors(theirs)[1]) for pair in pairs for turn, theirs in turns_of(pair)]
        transcribed = [(turn.clip, words) for turn, words, theirs in both if words and theirs]
        if any(clip is None for clip, _ in transcribed):
            return int(sum(words for _, words in transcribed)), None
        clips = dict(transcribed)
        return int(sum(clips.values())), len(clips)

    def _errors(self, turn: Turn) -> tuple[float | None, float | None]:
        return turn.errors_and_words(self.entry.service)

    def _values(self, both: tuple[Turn, Turn]) -> tuple[object, object]:
        return self._value(both[0]), self._value(both[1])

    def _value(self, turn: Turn) -> object:
        if self.compared.statistic is Statistic.SHARE_OF_TURNS:
            return 100.0 * (turn.error is not None)
        if self.compared.statistic is Statistic.ERRORS_PER_WORD:
            errors, words = self._errors(turn)
            return None if words is None else [float(errors or 0), float(words)]
        return turn.values.get(self.entry.turn_key)

    @property
    def statistic(self) -> ResampledStatistic:
        """Return how resamples become numbers."""
        if self.compared.statistic is Statistic.ERRORS_PER_WORD:
            return ratio_of_sums
        if self.percentile is None:
            return mean
        percentile = float(self.percentile)
        return lambda values, counts: percentile_of(values, counts, percentile)


def metrics_of(config: ExperimentConfig) -> list[ComparedMetric]:
    """Return the metrics of a comparison of this space, without those that its traffic does not measure."""
    return standard_metrics(
        config.objective.latency_percentile, error_unit(spoken_language(config)), catalogue_for(config), sessions=config.workload.has_sessions
    )


def standard_metrics(latency_percentile: int, counted_in: str = "word", catalogue: Catalogue = PAIR, *, sessions: bool = False) -> list[ComparedMetric]:
    """Return the metrics of every comparison; what a caller feels comes first. Recognition errors are counted in words or characters. What only
    the traffic of sessions measures is left out without them."""
    found = []
    for entry in catalogue.compared():
        if entry.needs.sessions and not sessions:
            continue
        if entry.compared is None or entry.compared.statistic is not Statistic.PERCENTILE:
            found.append(ComparedMetric(entry, counted_in=counted_in if entry.counts_errors else "word"))
            continue
        percentiles = (latency_percentile, 50) if entry.compared.median_too else (latency_percentile,)
        found += [ComparedMetric(entry, percentile) for percentile in dict.fromkeys(percentiles)]
    return found


def percentile_of(values: Floats, counts: NDArray[np.int64], percentile: float) -> Floats:
    """Return the percentile of each resample (Hyndman and Fan's type 7, as elsewhere), given how often it holds each value."""
    order = np.argsort(values, kind="stable")
    ordered, upto = values[order], np.cumsum(counts[:, order], axis=1)
    place = (upto[:, -1] - 1) * percentile / 100.0
    below = np.floor(place).astype(np.int64)
    low = ordered[np.argmax(upto > below[:, None], axis=1)]
    above = np.minimum(below + 1, upto[:, -1] - 1)
    high = ordered[np.argmax(upto > above[:, None], axis=1)]
    return np.asarray(low + (high - low) * (place - below))


def ratio_of_sums(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return errors over words of each resample (columns: errors, words)."""
    return np.asarray((counts @ values[:, 0]) / (counts @ values[:, 1]))


def mean(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return the mean of each resample."""
    return np.asarray((counts @ values) / counts.sum(axis=1))


def _arrays(ours: Sequence[object], theirs: Sequence[object]) -> tuple[Floats, Floats]:
    return np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
