"""Which of the best to measure again, and which to name as winner, when measurements are noisy.

Noise is learnt from repeats (pooled variance within configurations) and from the standard errors that evaluations report. A leader is
challenged as long as another configuration may still be better: then the one of the two that is known less is measured again (the
leader against its most likely rival, as in top-two sampling, Russo 2016). The winner is the best by a lower confidence bound, so that
one lucky evaluation does not win. Where repeats agree, nothing is measured twice again, and the winner is the best mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from scipy.stats import chi2

from tune_gpu.search.evaluations import Result

_NO_NOISE = 1e-3


@dataclass
class _Record:
    params: dict[str, Any]
    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


class Confirmation:
    """All fitness values so far, by configuration.

    Args:
        probe_after: evaluations before the leader is measured a second time to learn whether there is noise at all.
        doubt: a challenger that is better with less than this probability does not challenge.
        caution: standard errors that the winner's bound lies below its mean.
    """

    def __init__(self, probe_after: int = 16, doubt: float = 0.05, caution: float = 1.0) -> None:
        self._probe_after, self._doubt, self._caution = probe_after, doubt, caution
        self._records: dict[Hashable, _Record] = {}
        self._stderrs: list[float] = []
        self._evaluations = 0
        self._squares = 0.0
        self._freedom = 0

    def tell(self, key: Hashable, params: dict[str, Any], result: Result) -> None:
        """A result; one without a fitness says nothing here."""
        if result.fitness is None:
            return
        record = self._records.setdefault(key, _Record(params))
        if record.values:
            # Welford's step, over all configurations: the sum of squares around each one's own mean.
            before = record.mean
            record.values.append(result.fitness)
            self._squares += (result.fitness - before) * (result.fitness - record.mean)
            self._freedom += 1
        else:
            record.values.append(result.fitness)
        self._evaluations += 1
        if result.stderr is not None:
            self._stderrs.append(result.stderr)

    @property
    def noise(self) -> float | None:
        """Standard deviation of one evaluation; null while nothing tells it."""
        repeated = math.sqrt(max(0.0, self._squares) / self._freedom) if self._freedom else None
        reported = math.sqrt(sum(s * s for s in self._stderrs) / len(self._stderrs)) if self._stderrs else None
        known = [value for value in (repeated, reported) if value is not None]
        return max(known) if known else None

    @property
    def noisy(self) -> bool:
        """Whether noise is known to be there: more than a thousandth of the spread of the better half."""
        noise = self.noise
        if not noise or len(self._records) < 2:
            return False
        means = sorted((record.mean for record in self._records.values()), reverse=True)
        return noise > _NO_NOISE * (means[0] - means[len(means) // 2])

    def contender(self) -> dict[str, Any] | None:
        """What to measure again now; null if nothing needs it."""
        if len(self._records) < 2:
            return None
        leader = max(self._records.values(), key=lambda record: record.mean)
        if self.noise is None:
            return dict(leader.params) if self._evaluations >= self._probe_after else None
        if not self.noisy:
            return None
        rivals = [(self._better(record, leader), record) for record in self._records.values() if record is not leader]
        chance, rival = max(rivals, key=lambda pair: pair[0])
        if chance < self._doubt:
            return None
        return dict((rival if len(rival.values) < len(leader.values) else leader).params)

    def winner(self) -> dict[str, Any] | None:
        """The best by its lower confidence bound; null before anything was feasible."""
        if not self._records:
            return None
        width = self._caution * (self.noise or 0.0) if self.noisy else 0.0
        return dict(max(self._records.values(), key=lambda record: record.mean - width / math.sqrt(len(record.values))).params)

    def _at_most(self) -> float:
        """The noise's upper confidence limit at 90 %: two repeats that agree by luck do not end the questions."""
        factor = math.sqrt(self._freedom / float(chi2.ppf(0.1, self._freedom))) if self._freedom else 1.0
        return (self.noise or 0.0) * factor

    def _better(self, one: _Record, other: _Record) -> float:
        error = self._at_most() * math.sqrt(1.0 / len(one.values) + 1.0 / len(other.values))
        return 0.5 * math.erfc((other.mean - one.mean) / (error * math.sqrt(2.0))) if error else float(one.mean > other.mean)
