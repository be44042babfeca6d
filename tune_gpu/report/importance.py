"""Which knob mattered: permutation importance (Breiman 2001; scikit-learn's) of a random forest that was fitted to the run's evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.wording import counted

METHOD = "Permutation importance (scikit-learn) of a random forest of 100 trees"
LEAST = 8
"""Fewest measured evaluations for an importance."""
LEAST_R2 = 0.2
"""Least R² out of bag at which the importance is shown: a forest that predicts nothing says nothing of the knobs."""


@dataclass(frozen=True)
class Importance:
    """By how much the forest's explained variance of fitness falls when a knob's values are shuffled."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Standard deviation over the shuffles."""
    r2_unseen: float
    """How well the forest predicts evaluations that it has not seen (out of bag; 1 is perfectly, 0 as well as the mean does)."""
    n: int

    @property
    def caution(self) -> str | None:
        """Return why it is not shown; None if there is no reason."""
        if self.r2_unseen < LEAST_R2:
            return (
                f"the forest does not predict evaluations that it has not seen (R² {self.r2_unseen:.2f} out of bag, at least {LEAST_R2:g} is needed): "
                f"{self.n} are too few, or noise dominates"
            )
        return None


def importance_text(found: Importance | None) -> str:
    """Return the words beside the importance of the knobs, or the reason why it is not shown."""
    if found is None:
        return f"Not shown: it takes {LEAST} measured evaluations in which a knob and the fitness vary."
    if found.caution is not None:
        return f"Not shown: {found.caution}."
    return f"{METHOD}, fitted to {counted(found.n, 'evaluation')}. R² out of bag: {found.r2_unseen:.2f}."


def importance_of(lines: Sequence[EvaluationRecord], seed: int = 0) -> Importance | None:
    """Return the importance of the knobs of a run, the largest first, or None if too few evaluations were measured or no knob varied."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    measured = [line for line in lines if line.fitness is not None]
    names = sorted({name for line in measured for name in line.params})
    columns = {name: _codes([line.params.get(name) for line in measured]) for name in names}
    varied = [name for name in names if len(set(columns[name])) > 1]
    if len(measured) < LEAST or not varied:
        return None
    x = np.array([columns[name] for name in varied]).T
    y = np.array([line.known_fitness for line in measured])
    if float(np.ptp(y)) == 0.0:
        return None
    forest = RandomForestRegressor(100, oob_score=True, random_state=seed, n_jobs=1).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=10, random_state=seed, n_jobs=1)
    order = np.argsort(-found.importances_mean)
    return Importance(
        tuple(varied[i] for i in order), tuple(float(found.importances_mean[i]) for i in order),
        tuple(float(found.importances_std[i]) for i in order), float(forest.oob_score_), len(measured),
    )  # fmt: skip


def _codes(values: list[Any]) -> list[float]:
    """Return numbers as they are, and other values by their rank among those that occur. An inactive knob comes first."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    levels = {text: float(index) for index, text in enumerate(sorted({repr(value) for value in values if value is not None}))}
    return [-1.0 if value is None else levels[repr(value)] for value in values]
