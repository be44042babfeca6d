"""A forest of extremely randomised trees (Geurts et al. 2006): the second opinion beside the Gaussian process.

It sees jumps and interactions where the process sees slopes. The spread over its trees is its uncertainty (Hutter et al. 2011, SMAC).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

Array = NDArray[np.float64]
_FLOOR = 1e-3


class Forest:
    """Fitted with `fit`, asked with `predict`.

    Args:
        trees: how many.
    """

    def __init__(self, trees: int = 24) -> None:
        self._trees = trees

    def fit(self, x: Array, y: Array, repeats: Array, seed: int) -> None:
        """On these measurements; one that is a mean of several counts as several."""
        model = ExtraTreesRegressor(self._trees, max_features=0.8, bootstrap=True, random_state=seed)
        model.fit(x, y, sample_weight=repeats)
        self._estimators = [estimator.tree_ for estimator in model.estimators_]

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation over the trees at each row."""
        rows = np.ascontiguousarray(x, dtype=np.float32)
        votes = np.array([tree.predict(rows)[:, 0] for tree in self._estimators])
        return votes.mean(axis=0), np.sqrt(votes.var(axis=0) + _FLOOR)
