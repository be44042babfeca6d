"""Score configurations by two models: a Gaussian process, which follows slopes, and a forest, which follows jumps.

The score of a configuration is the weighted geometric mean of both models' expected improvement, times the learnt
probability that it runs at all. The weights follow from how well each model predicts measurements that it has not seen (leave-one-out
for the process, out-of-bag for the forest), so that on a smooth landscape the process decides and on a rugged one the forest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search import priors
from tune_gpu.search.encoding import Array, Encoding
from tune_gpu.search.feasibility import Feasibility
from tune_gpu.search.forest import Forest
from tune_gpu.search.surrogate import GaussianProcess, log_expected_improvement
from tune_gpu.search.targets import normal_scores, power_scores

_UNLIKELY = 0.25
"""A configuration with a lower probability to run is proposed only when nothing else is left."""
HOPELESS = -1e5
"""Upper bound of the scores of configurations that most likely do not run."""
_BAGS = 0.6
"""Approximate ratio of a whole forest's error to that of the third of its trees that has not seen a measurement."""
_PRIOR_TRUST, _PRIOR_ROWS, _BOUNDS = 0.75, 20, (0.25, 0.75)
_ASKED_SHARE, _ASKED_LEAST = 6, 150
"""In a space of values, the process scores the best sixth by the other scores, but at least this many rows."""
_UNASKED = 1e4
"""Difference by which the rows that the process does not score rank below the others. Rows that most likely do not run rank below both."""
_ALWAYS, _TUNING_STEPS, _SHORT_TUNING_STEPS = 150, 30, 12
"""With continuous parameters, the process is tuned and the forest grown with every result, up to this many results. Otherwise, and later,
they are updated more seldom the more results there are."""
_TUNED_EVERY, _GROWN_EVERY = (12, 32), (6, 16)
"""Otherwise a twelfth (the process) or a sixth (the forest) of the evaluations so far pass between updates, at most 32 or 16. A few more
results hardly change what is learnt, and learning takes most of the time."""


class Committee:
    """Both models: `learn` fits them, `score` applies them.

    Args:
        encoding: the space's encoding.
        rng: chooses rows if there are many.
    """

    def __init__(self, encoding: Encoding, rng: np.random.Generator) -> None:
        self._encoding, self._rng = encoding, rng
        self._seed = int(rng.integers(2**31))
        self._process, self._forest, self._feasibility = GaussianProcess(encoding.groups), Forest(), Feasibility(self._seed)
        self._noise_free_prior, self._noisy_prior = self._process.prior, priors.noisy(encoding.n)
        self._tuned_at = 0
        self._grown: tuple[Array, Array, Array, int] | None = None
        """The data from which the forest was grown: see `_grow`."""
        self.trust = 0.0
        """The forest's weight, from 0 to 1; the process has the rest."""

    def state(self) -> dict[str, Any]:
        """Return the state that cannot be computed from the measurements, or that was computed from earlier ones."""
        forest = self._grown and [*(values.tolist() for values in self._grown[:3]), self._grown[3]]
        return {"theta": self._process.theta.tolist(), "tuned_at": self._tuned_at, "forest": forest}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state`, before the next `learn`."""
        self._process.theta, self._tuned_at = np.array(state["theta"]), int(state["tuned_at"])
        if state["forest"] is not None:
            codes, ranked, counts, total = state["forest"]
            self._grow(np.array(codes), np.array(ranked), np.array(counts), total)

    def ask_anew(self) -> None:
        """Grow the forest again at the next `learn`, which has other targets."""
        self._grown = None

    def learn_what_runs(self, codes: Array, ran: NDArray[np.bool_]) -> None:
        """Learn the probability to run from rows, and from whether each of them ran."""
        self._feasibility.learn(self._encoding.features(codes), ran)

    def log_probability_to_run(self, codes: Array) -> Array:
        """Return the logarithm of the probability that each row runs, as learnt by `learn_what_runs`."""
        return self._feasibility.log_probability(self._encoding.features(codes))

    def learn(self, codes: Array, means: Array, counts: Array, waiting: Array, total: int, *, noise_free: bool = False) -> None:
        """Fit the models to measurements.

        Args:
            codes: one row per configuration that ran.
            means: mean fitness of each.
            counts: number of evaluations of each.
            waiting: rows that await their result; they count as measured at the value that is predicted for them.
            total: number of evaluations so far.
            noise_free: measurements are known to have no noise.
        """
        x, ranked = self._encoding.features(codes), normal_scores(means)
        y = power_scores(means) if self._encoding.continuous else ranked
        if total - self._tuned_at >= self._every(total, *_TUNED_EVERY):
            self._process.prior = self._noisy_prior if self._encoding.continuous and not noise_free else self._noise_free_prior
            self._process.tune(x, y, counts, self._rng, _TUNING_STEPS if self._encoding.continuous else _SHORT_TUNING_STEPS)
            self._tuned_at = total
        self._process.condition(x, y, counts)
        if self._grown is None or total - self._grown[3] >= self._every(total, *_GROWN_EVERY):
            self._grow(codes, ranked, counts, total)
        self.trust = self._forests_share(len(codes))
        self.leaders = codes[np.argsort(-y, kind="stable")[:5]]
        """The rows that measured best, best first."""
        if len(waiting):
            self._process.believe(self._encoding.features(waiting))
        self._best = float(self._process.fitted.max())

    def _every(self, total: int, share: int, most: int) -> int:
        """Return the number of evaluations between two updates."""
        return 1 if self._encoding.continuous and total <= _ALWAYS else max(1, min(total // share, most))

    def _grow(self, codes: Array, ranked: Array, counts: Array, total: int) -> None:
        self._grown = (codes, ranked, counts, total)
        self._forest.fit(codes, ranked, counts, seed=(self._seed, total))
        self._forest_best = float(ranked.max())

    def score(self, codes: Array) -> Array:
        """Return the logarithm of the expected improvement of each row, weighed by the probability that it runs.

        The process takes most of the time. In a space of values it scores only the rows that the forest scores high, because it seldom
        disagrees about the others.
        """
        if not len(codes):
            return np.empty(0)
        x = self._encoding.features(codes)
        by_forest = log_expected_improvement(*self._forest.predict(codes), self._forest_best)
        runs = self._feasibility.log_probability(x)
        # The logarithms of very small improvements differ by tens. Without this bound, only probabilities near 0 would have any effect.
        score = self.trust * by_forest + runs - np.where(runs < math.log(_UNLIKELY), 1e6, 0.0)
        order = np.argsort(-score, kind="stable")
        most = len(codes) if self._encoding.continuous else max(_ASKED_LEAST, len(codes) // _ASKED_SHARE)
        asked, unasked = order[:most], order[most:]
        score[unasked] -= _UNASKED
        score[asked] += (1.0 - self.trust) * log_expected_improvement(*self._process.predict(x[asked]), self._best)
        return score

    def _forests_share(self, n: int) -> float:
        """Return the weight of the forest. Few measurements do not show which model predicts better, so a prior favours the forest, the
        more cautious one."""
        process, forest = self._process.error**2, (_BAGS * self._forest.error) ** 2
        earned = process / (process + forest) if math.isfinite(forest) and process + forest > 0.0 else 0.5
        return (_PRIOR_ROWS * _PRIOR_TRUST + n * float(np.clip(earned, *_BOUNDS))) / (_PRIOR_ROWS + n)
