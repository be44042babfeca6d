"""The likelihood of the variance between deployments, and all means for each value of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Deployments, as columns."""

    of: NDArray[np.intp]
    """The configuration of each deployment, numbered from 0 without gaps."""
    values: Array
    within: Array
    """Variance within each deployment."""
    freedoms: Array
    """Degrees of freedom of that variance."""
    times: Array
    """Time of each deployment. All are equal if no drift is to be estimated."""

    @property
    def n_configurations(self) -> int:
        """Return the number of configurations."""
        return int(self.of.max()) + 1 if len(self.of) else 0

    def sums(self, values: Array) -> Array:
        """Return the sums over the deployments of each configuration; `values` has one row per deployment."""
        total = np.zeros((self.n_configurations, *values.shape[1:]))
        np.add.at(total, self.of, values)
        return total


@dataclass(frozen=True)
class Fit:
    """Generalised least squares for each variance of a grid. Arrays have one row per configuration and one column per variance."""

    between: Array
    """The grid: variances between deployments."""
    means: Array
    """Mean of each configuration at time 0."""
    variances: Array
    """Variance of each mean at its `centres`, where the slope has no effect."""
    doubts: Array
    """Variance of `variances`, because the errors within are estimates, too (Satterthwaite 1946)."""
    centres: Array
    """Mean time of the deployments of each configuration, weighted as their values are."""
    slope: Array
    slope_variance: Array
    log: Array
    """Logarithm of the restricted likelihood (Patterson and Thompson 1971): means and slope are integrated out."""


def fit(rows: Rows, between: Array) -> Fit:
    """Return the means, the slope and the likelihood for each variance between deployments."""
    within = rows.within[:, None]
    weights = 1.0 / (within + between)
    variances = 1.0 / rows.sums(weights)
    shares = weights * variances[rows.of]
    means, centres = rows.sums(shares * rows.values[:, None]), rows.sums(shares * rows.times[:, None])
    rest, late = rows.values[:, None] - means[rows.of], rows.times[:, None] - centres[rows.of]
    information = np.sum(weights * late**2, axis=0)
    drifts = information > 0.0
    slope_variance = np.where(drifts, 1.0 / np.where(drifts, information, 1.0), 0.0)
    slope = slope_variance * np.sum(weights * late * rest, axis=0)
    log = np.sum(np.log(weights), axis=0) + np.sum(np.log(variances), axis=0) + np.log(np.where(drifts, slope_variance, 1.0))
    log -= np.sum(weights * (rest - slope * late) ** 2, axis=0)
    doubts = rows.sums((shares**2 * within) ** 2 * (2.0 / rows.freedoms[:, None]))
    return Fit(between, means - slope * centres, variances, doubts, centres, slope, slope_variance, 0.5 * log)
