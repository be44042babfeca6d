"""Choose which of the best configurations to measure again, and the winner, when measurements are noisy.

The uncertainty of each mean is from `evidence.py`. A leader is challenged as long as another configuration may still be better. Then the
less certain one of the leader and its most likely rival is measured again (as in top-two sampling, Russo 2016). The winner is the best by a
lower confidence bound, so that one lucky evaluation does not win. If repeats agree, nothing is measured a third time, and the winner has
the best mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtrc, ndtr

from tune_gpu.search.collected import Collected
from tune_gpu.search.evaluations import Result

_NO_NOISE = 1e-3
_ALIKE = 0.8
"""p-value above which measurements show no signal: equal configurations would differ more in four of five searches. With a lower value,
guidance is lost if differences are small but real (see `TRIED.md` of the benchmark)."""


class Confirmation:
    """The fitness values so far, by configuration.

    Args:
        probe_after: number of evaluations before the leader is measured a second time, to find out whether there is noise at all.
        doubt: least probability of being better that a challenger must have.
        caution: number of standard errors by which the winner's bound lies below its mean.
    """

    def __init__(self, probe_after: int = 16, doubt: float = 0.05, caution: float = 1.0) -> None:
        self._probe_after, self._doubt, self._caution = probe_after, doubt, caution
        self._at: dict[Hashable, int] = {}
        self._params: list[dict[str, Any]] = []
        self._room_means, self._room_counts = np.zeros(64), np.zeros(64)
        self._evaluations = self._freedom = 0
        self._squares = 0.0
        self._collected = Collected()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the arrays, because they are modified and Ray delivers them as read-only memory."""
        self.__dict__.update({name: value.copy() if isinstance(value, np.ndarray) else value for name, value in state.items()})

    def observe(self, key: Hashable, params: dict[str, Any], result: Result) -> None:
        """Add a result. A result without a fitness is ignored."""
        if result.fitness is None:
            return
        at = self._at.setdefault(key, len(self._params))
        if at == len(self._params):
            self._params.append(params)
            if at == len(self._room_means):
                self._room_means, self._room_counts = (np.concatenate([room, np.zeros(at)]) for room in (self._room_means, self._room_counts))
        # Welford's update of the sum of squares around each configuration's own mean, over all configurations.
        before, count = float(self._room_means[at]), float(self._room_counts[at]) + 1.0
        mean = before + (result.fitness - before) / count
        self._room_means[at], self._room_counts[at] = mean, count
        if count > 1.0:
            self._squares += (result.fitness - before) * (result.fitness - mean)
            self._freedom += 1
        self._evaluations += 1
        self._collected.observe(key, result.fitness, result.stderr, result.n_windows)

    @property
    def _means(self) -> NDArray[np.float64]:
        return self._room_means[: len(self._params)]

    @property
    def _counts(self) -> NDArray[np.float64]:
        return self._room_counts[: len(self._params)]

    @property
    def noise(self) -> float | None:
        """Return the standard deviation of one evaluation, or None if it is unknown."""
        if not self._collected.noisy:
            return 0.0 if self._collected.known else None
        return self._collected.evidence.noise

    @property
    def _repeated(self) -> float | None:
        """Return the standard deviation of repetitions, or None without any."""
        return math.sqrt(max(0.0, self._squares) / self._freedom) if self._freedom else None

    @property
    def noisy(self) -> bool:
        """Return whether there is known to be noise: more than a thousandth of the spread of the better half."""
        noise = self.noise
        if not noise or len(self._params) < 2:
            return False
        half = len(self._params) - 1 - len(self._params) // 2
        return noise > _NO_NOISE * float(self._means.max() - np.partition(self._means, half)[half])

    @property
    def noise_free(self) -> bool:
        """Return whether it is known that there is no noise."""
        return self.noise is not None and not self.noisy

    @property
    def no_signal(self) -> bool:
        """Return whether there is noise and nothing shows that configurations differ at all.

        This is the F-test of an analysis of variance (Fisher 1925): the spread between configurations against that of repetitions. The
        errors that evaluations report are not used, because they may contain what all evaluations share, such as traffic that changes from
        window to window.
        """
        if not self.noisy or not (noise := self._repeated):
            return False
        means, counts = self._means, self._counts
        between = float(np.sum(counts * (means - np.average(means, weights=counts)) ** 2)) / (len(means) - 1)
        return float(fdtrc(len(means) - 1, self._freedom, between / noise**2)) > _ALIKE

    def contenders(self) -> list[dict[str, Any]]:
        """Return what to measure again now: the leader and its likeliest rival, the less certain one first. Return an empty list if nothing
        needs that."""
        if len(self._params) < 2:
            return []
        if self.noise is None:
            return [dict(self._params[int(np.argmax(self._means))])] if self._evaluations >= self._probe_after else []
        if not self.noisy:
            return []
        evidence = self._collected.evidence
        leader = int(np.argmax(evidence.estimates.means))
        found = evidence.differences(evidence.keys[leader])
        # The upper confidence limit of the error at 90 %, so that two repeats that agree by luck do not end the confirmation.
        at_most = found.stderrs * np.sqrt(found.freedoms / chdtri(found.freedoms, 0.9))
        at_most[leader] = 1.0
        chance = ndtr(found.means / at_most)
        chance[leader] = -1.0
        rival = int(np.argmax(chance))
        if chance[rival] < self._doubt:
            return []
        errors = evidence.estimates.stderrs
        pair = (rival, leader) if errors[rival] > errors[leader] else (leader, rival)
        return [dict(self._params[at]) for at in pair]

    def winner(self) -> dict[str, Any] | None:
        """Return the configuration with the best lower confidence bound, or None if none was feasible."""
        if not self._params:
            return None
        if not self.noisy:
            return dict(self._params[int(np.argmax(self._means))])
        known = self._collected.evidence.estimates
        return dict(self._params[int(np.argmax(known.means - self._caution * known.stderrs))])
