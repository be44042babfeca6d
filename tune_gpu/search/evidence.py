"""Estimate each configuration and its uncertainty by one model of a run's measurements, in which the deployment is the unit of evidence.

Measurement j of configuration c is y[j] = mu[c] + drift * t[j] + b[j] + e[j].
- e[j] is the error within the deployment, which the evaluation reports.
- b[j] is the difference between deployments. Its variance is pooled over the run: the marginal likelihood with the means integrated out
  (REML: Patterson and Thompson 1971; as a two-level normal model: Gelman et al., Bayesian Data Analysis, 5.4) times a scaled inverse
  chi-squared prior, on a grid.
- the clips, which all deployments share, are a sample, too. Their part of the error is the same in each deployment of a configuration, so a
  prediction of the next deployment does not contain it. The error of a mean does, and that of a difference clip by clip, where the shared
  part cancels.
- drift is common to all configurations. With four anchors or more it is estimated by generalised least squares. With fewer it stays in b,
and widens intervals.
Given the variance, every estimate is normal. Over the grid it is a mixture of normals, reported as the Student distribution whose precision has
the mixture's mean and variance, which is exact for a scaled inverse chi-squared. The small number of windows behind the errors within adds
to the
variance of the precision, as in Satterthwaite's degrees of freedom (1946).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property

import numpy as np

from tune_gpu.search.deployed import Deployment, freedom_of
from tune_gpu.search.pooled import Array, Rows, fit
from tune_gpu.search.student import Student, Students

__all__ = ["ANCHORS_FOR_DRIFT", "PRIOR_FREEDOM", "PRIOR_RATIO", "Deployment", "Evidence", "Student", "Students", "freedom_of"]
PRIOR_RATIO = 1.9
"""The prior's standard deviation between deployments, as a multiple of the median reported error."""
PRIOR_FREEDOM = 2.0
"""The prior's degrees of freedom. `python -m tests.benchmarks.coverage --prior` derives both numbers from recorded runs by their marginal
likelihood. It is highest at a ratio of 2.0 with 4 degrees, and within a third of a unit of that for 2 to 10 degrees (at ratios of 1.8 to
2.0). The fewest of these degrees keep intervals honest for other kinds of run: 57 of 60 deployments of a soak that was measured afterwards
lie in their 95 % intervals (tests/benchmarks/coverage/RESULTS.md)."""
ANCHORS_FOR_DRIFT = 4
"""Fewest anchors with which drift is estimated. With fewer the slope would be noise."""
_POINTS, _REACH = 41, 1e4
"""Number of points of the grid of standard deviations between deployments, and the factor by which it extends beyond those that the prior
and the repeats suggest."""
_NEGLIGIBLE, _LIKELY, _ENOUGH = 1e-9, 1e-2, 12
"""Probabilities relative to the highest: points below the first are dropped when the grid is refined, until this many points are above the
second."""
_TYPICAL_WEIGHT = 2.0
"""The predicted error within the next deployment averages the configuration's deployments and this many typical ones."""


class Evidence:
    """The evidence of all deployments of a run.

    Args:
        deployments: all measured deployments, in any order.
        prior_ratio: see `PRIOR_RATIO`.
        prior_freedom: see `PRIOR_FREEDOM`.
    """

    def __init__(self, deployments: Iterable[Deployment], *, prior_ratio: float = PRIOR_RATIO, prior_freedom: float = PRIOR_FREEDOM) -> None:
        found = list(deployments)
        self._index: dict[Hashable, int] = {}
        of = np.array([self._index.setdefault(each.key, len(self._index)) for each in found], dtype=np.intp)
        self._counts = np.bincount(of, minlength=len(self._index)).astype(float)
        values = np.array([each.value for each in found], dtype=float)
        # Values relative to the first of each configuration, so that equal repeats are equal to the bit.
        first = values[np.unique(of, return_index=True)[1]]
        self._plain: Array = first + np.bincount(of, (values - first[of]) / self._counts[of], minlength=len(self._index)).astype(float)
        off = values - self._plain[of]
        within = np.array([math.nan if each.stderr is None else each.stderr for each in found], dtype=float)
        # Scaled by a unit, so that the squares of very small and very large numbers are representable.
        self._unit = float(max(np.nanmax(within, initial=0.0), np.abs(off).max(initial=0.0))) or 1.0
        self._off, within = off / self._unit, (within / self._unit) ** 2
        positive = within[within > 0.0]
        self.typical = float(np.median(positive)) if len(positive) else 0.0
        """Median variance within a deployment, in squared units of `rows`."""
        self._unknown = bool(np.isnan(within).all()) and len(found) == len(self._index)
        times = np.array([each.at for each in found], dtype=float)
        self._drifts = sum(each.anchor for each in found) >= ANCHORS_FOR_DRIFT and bool(np.ptp(times) > 0.0)
        self._start, self._span = (float(times.mean()), float(np.ptp(times))) if self._drifts else (0.0, 1.0)
        self.rows = Rows(
            of, self._off, np.where(np.isnan(within), self.typical, within), np.array([each.freedom for each in found], dtype=float),
            (times - self._start) / self._span if self._drifts else np.zeros(len(found)),
        )  # fmt: skip
        self._clips = self._shares(found)
        self._pool(prior_ratio, prior_freedom)

    def _shares(self, found: Sequence[Deployment]) -> Array:
        """Return the mean share of each clip in the deployments of each configuration, of shape (configurations, clips), in the unit."""
        names = {name: i for i, name in enumerate(dict.fromkeys(name for each in found for name in each.clips))}
        shares = np.array([[each.clips.get(name, 0.0) for name in names] for each in found], dtype=float).reshape(len(found), len(names))
        return self.rows.sums(shares / self._unit / self._counts[self.rows.of, None])

    def _of_clips(self, shares: Array) -> tuple[Array, Array]:
        """Return the variance due to the clips, and the variance of that variance, one per row."""
        variances = np.sum(shares**2, axis=1, keepdims=True)
        return variances, 2.0 * variances**2 / max(1, shares.shape[1] - 1)

    def _pool(self, ratio: float, freedom: float) -> None:
        """Fit on a coarse grid, then on finer ones around the posterior."""
        repeats = len(self._off) - len(self._index)
        prior, spread = self.typical * ratio**2, float(np.sum(self._off**2)) / repeats if repeats else 0.0
        scales = [variance for variance in (prior, spread) if variance > 0.0]
        self._noise_free = not scales
        grid = np.geomspace(min(scales) / _REACH**2, max(scales) * _REACH**2, _POINTS) if scales else np.ones(1)
        while True:
            self._fit = fit(self.rows, grid)
            # The prior and the fit's probabilities refer to logarithmic steps. Without reported errors only repeats count.
            log = self._fit.log - (0.5 * freedom * (np.log(grid) + prior / grid) if prior else 0.0)
            chance = np.exp(log - log.max())
            self._chance = chance / chance.sum()
            likely = np.flatnonzero(chance > _NEGLIGIBLE)
            first, last = max(0, likely[0] - 1), min(len(grid) - 1, likely[-1] + 1)
            if self._noise_free or np.sum(chance > _LIKELY) >= _ENOUGH or last - first >= len(grid) - 1:
                break
            grid = np.geomspace(grid[first], grid[last], _POINTS)

    def __contains__(self, key: Hashable) -> bool:
        """Return whether a configuration was measured."""
        return key in self._index

    @property
    def keys(self) -> list[Hashable]:
        """Return the configurations in the order of their first deployment."""
        return list(self._index)

    def deployments_of(self, key: Hashable) -> int:
        """Return the number of deployments of a configuration. Raise KeyError if it was not measured."""
        return int(self._counts[self._index[key]])

    @property
    def known(self) -> bool:
        """Return whether the noise is known, by a reported error or a repeat."""
        return not self._unknown

    @property
    def noise_free(self) -> bool:
        """Return whether there is no noise: reported errors are 0, and repeats agree."""
        return self._noise_free and self.known

    @property
    def between(self) -> float | None:
        """Return the standard deviation between deployments of one configuration, without the errors within them, or None if it is
        unknown."""
        if self._noise_free:
            return None if self._unknown else 0.0
        return self._unit / math.sqrt(float(self._chance @ (1.0 / self._fit.between)))

    @property
    def noise(self) -> float | None:
        """Return the standard deviation of one typical deployment, including the error within it, or None if it is unknown."""
        if self._unknown:
            return None
        return 0.0 if self._noise_free else self._unit / math.sqrt(float(self._chance @ (1.0 / (self._fit.between + self.typical))))

    @property
    def drift(self) -> Student | None:
        """Return the drift over one unit of time, or None if it is not estimated."""
        if not self._drifts:
            return None
        slope, variance = self._fit.slope / self._span, self._fit.slope_variance / self._span**2
        return self._students(slope[None], variance[None], np.zeros((1, 1)))[0]

    def _noise(self, variances: Array) -> Array:
        """Return the variances, or zeros without noise, because the fit always assumes some variance between deployments."""
        return np.zeros_like(variances) if self._noise_free else variances

    def _students(self, means: Array, variances: Array, doubts: Array, plain: Array | float = 0.0) -> Students:
        """Return the distributions of numbers with these means and variances on the grid, one per row. `doubts` are the variances of the
        variances."""
        if self._unknown or (self._noise_free and not variances.any()):
            count = len(means)
            return Students(plain + np.zeros(count), np.full(count, math.inf if self._unknown else 0.0), np.full(count, math.inf))
        return Students.of_mixture(means, variances, doubts, self._chance).scaled(self._unit, plain)

    @cached_property
    def estimates(self) -> Students:
        """Return the distribution of each configuration's mean, in the order of `keys`; with drift, at the middle of the run."""
        found, (clips, doubts) = self._fit, self._of_clips(self._clips)
        return self._students(
            found.means, self._noise(found.variances + found.slope_variance * found.centres**2) + clips, found.doubts + doubts, self._plain
        )

    def estimate(self, key: Hashable) -> Student:
        """Return the distribution of a configuration's mean. Raise KeyError if it was not measured."""
        return self.estimates[self._index[key]]

    def prediction(self, key: Hashable, at: float | None = None) -> Student:
        """Return the distribution of one more deployment, `at` a time (default: the middle of the run). Raise KeyError if the configuration
        was not measured."""
        i, found = self._index[key], self._fit
        late = 0.0 if at is None or not self._drifts else (at - self._start) / self._span
        own, count = self.rows.within[self.rows.of == i], self._counts[i] + _TYPICAL_WEIGHT
        within = (own.sum() + _TYPICAL_WEIGHT * self.typical) / count
        doubts = found.doubts[i] + np.sum(2.0 * own**2 / self.rows.freedoms[self.rows.of == i]) / count**2
        variances = found.variances[i] + found.slope_variance * (late - found.centres[i]) ** 2 + found.between + within
        return self._students((found.means[i] + found.slope * late)[None], self._noise(variances[None]), doubts[None], self._plain[i])[0]

    def differences(self, key: Hashable) -> Students:
        """Return for each configuration its mean minus that of `key`, in the order of `keys`. For `key` itself it is exactly 0."""
        i, fitted = self._index[key], self._fit
        clips, doubts = self._of_clips(self._clips - self._clips[i])
        variances = fitted.variances + fitted.variances[i] + fitted.slope_variance * (fitted.centres - fitted.centres[i]) ** 2
        found = self._students(
            fitted.means - fitted.means[i], self._noise(variances) + clips, fitted.doubts + fitted.doubts[i] + doubts, self._plain - self._plain[i]
        )
        found.means[i], found.stderrs[i] = 0.0, 0.0
        return found

    def difference(self, key: Hashable, other: Hashable) -> Student:
        """Return the mean of `key` minus that of `other`. Raise KeyError if one was not measured."""
        return self.differences(other)[self._index[key]]

    def differ(self, key: Hashable, other: Hashable, alpha: float = 0.05) -> bool:
        """Return whether two configurations are shown to differ, at a two-sided level."""
        return self.difference(key, other).excludes_zero(alpha)

    def better_than(self, key: Hashable, rivals: Iterable[Hashable], alpha: float) -> list[Hashable]:
        """Return the rivals that are shown to have a higher mean than `key`, one-sided. Raise KeyError if one was not measured."""
        found = self.differences(key)
        higher = found.exclude_zero(2.0 * alpha) & (found.means > 0.0)
        return [rival for rival in rivals if higher[self._index[rival]]]

    def tied_with(self, key: Hashable, alpha: float = 0.05) -> list[Hashable]:
        """Return the others that are not shown to differ from `key`. The level is divided by their number (Bonferroni), because `key` is
        often the best of many, and one of many equal configurations is the best by luck."""
        others = len(self._index) - 1
        differ = self.differences(key).exclude_zero(alpha / max(1, others))
        return [other for other, i in self._index.items() if other != key and not differ[i]]

    def ranked(self) -> list[Hashable]:
        """Return the configurations by mean, highest first. Of equal ones the earlier comes first."""
        order = np.argsort(-self.estimates.means, kind="stable")
        keys: Sequence[Hashable] = self.keys
        return [keys[i] for i in order]
