"""Estimate how likely a configuration is to run at all, from those that ran and those that did not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.forest import Forest

Array = NDArray[np.float64]
_PRIOR = 0.5
"""Weight of the prior, in nearest votes."""
_ENOUGH = 4
"""Fewest configurations of either outcome with which a forest is fitted."""


class Feasibility:
    """The product of two estimates. One averages the measured outcomes weighted by nearness, with a prior for success unless most fail. The
    other is a forest, which finds a parameter that all failures share, however far apart they are otherwise.

    Args:
        seed: the forest's seed.
        scale: the distance (in features, each in [0, 1]) at which a measurement has lost most of its weight.
    """

    def __init__(self, seed: int = 0, scale: float = 0.25) -> None:
        self._seed, self._scale = seed, scale
        self._x: Array | None = None
        self._forest: Forest | None = None

    def learn(self, x: Array, feasible: NDArray[np.bool_]) -> None:
        """Learn from rows of features, and from whether each ran."""
        self._x, self._feasible = (None if feasible.all() else x), feasible
        self._elsewhere = min(1.0, 2.0 * (feasible.sum() + 1.0) / (len(feasible) + 1.0))
        self._forest = None
        if min(feasible.sum(), (~feasible).sum()) >= _ENOUGH:
            self._forest = Forest(trees=12)
            self._forest.fit(x, feasible.astype(float), np.ones(len(x)), seed=(self._seed, len(x)))

    def log_probability(self, x: Array) -> Array:
        """Return the logarithm of the probability that each row runs; 0 while nothing has failed."""
        if self._x is None:
            return np.zeros(len(x))
        square = np.maximum((x * x).sum(1)[:, None] + (self._x * self._x).sum(1)[None, :] - 2.0 * x @ self._x.T, 0.0)
        weight = np.exp(-0.5 * square / self._scale**2)
        chance = (weight @ self._feasible + _PRIOR * self._elsewhere) / (weight.sum(axis=1) + _PRIOR)
        if self._forest is not None:
            chance *= np.clip(self._forest.predict(x)[0], 0.02, 1.0)
        return np.asarray(np.log(chance))
