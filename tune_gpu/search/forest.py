"""A forest of extremely randomised trees (Geurts et al. 2006), the second model besides the Gaussian process.

It models jumps and interactions, and the process slopes. The spread over its trees is its uncertainty (Hutter et al. 2011, SMAC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.tree import ExtraTreeRegressor

Array = NDArray[np.float64]
_FLOOR = 1e-3


class Forest:
    """A regression forest: `fit` grows it, `predict` applies it.

    Args:
        trees: number of trees.
    """

    def __init__(self, trees: int = 16) -> None:
        self._trees = trees

    def fit(self, x: Array, y: Array, repeats: Array, seed: int | Sequence[int]) -> None:
        """Grow the trees from these measurements. A mean of several measurements counts as several."""
        rng = np.random.default_rng(seed)
        rows, targets = np.ascontiguousarray(x, dtype=np.float32), np.ascontiguousarray(y[:, None])
        times = np.array([np.bincount(rng.integers(len(x), size=len(x)), minlength=len(x)) for _ in range(self._trees)]) * repeats.astype(np.int64)
        # Grown tree by tree, without checks, with one random state, and with rows repeated instead of weighted. scikit-learn's overhead per
        # small tree (the ensemble's book-keeping, seeding, checks of weights) is larger than the time for the tree itself.
        state = np.random.RandomState(int(rng.integers(2**32)))
        with config_context(skip_parameter_validation=True):
            self._estimators = [
                ExtraTreeRegressor(max_features=0.8, random_state=state).fit(
                    rows.repeat(each, axis=0), targets.repeat(each, axis=0), check_input=False).tree_
                for each in times]
        unseen = times == 0
        votes = np.array([tree.predict(rows)[:, 0] for tree in self._estimators])
        asked = unseen.any(axis=0)
        predicted = (votes * unseen).sum(axis=0)[asked] / unseen.sum(axis=0)[asked]
        self.error = float(np.mean((predicted - y[asked]) ** 2)) if asked.any() else math.inf
        """Mean squared error of the predictions by trees that have not seen the measurement."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and the standard deviation over the trees at each row."""
        rows = np.ascontiguousarray(x, dtype=np.float32)
        votes = np.array([tree.predict(rows)[:, 0] for tree in self._estimators])
        return votes.mean(axis=0), np.sqrt(votes.var(axis=0) + _FLOOR)
