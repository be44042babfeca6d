"""Recorded deployments, and how often a repeated one falls into the prediction interval of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv, gammaln

from tune_gpu.artifacts.deployments import deployment_of, key_of
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.search.evidence import Deployment, Evidence
from tune_gpu.search.pooled import fit

_SOAK_WINDOWS = 3
"""The value for lines of the first soak, which do not record it."""


@dataclass(frozen=True)
class Predicted:
    """One deployment, and the interval that the others predict for it."""

    configuration: str
    value: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Return whether it did."""
        return self.low <= self.value <= self.high


def read(path: Path) -> list[Deployment]:
    """Return the deployments of a run folder, or of a file of a soak.

    Raises:
        ValueError: nothing measured is there.
    """
    files = sorted(path.glob("gen_*_candidates.jsonl")) + sorted(path.glob("anchors.jsonl")) if path.is_dir() else [path]
    found = [_deployment(json.loads(line), i, file.name) for file in files for i, line in enumerate(file.read_text().splitlines()) if line]
    measured = [each for each in found if each is not None]
    if not measured:
        raise ValueError(f"{path}: no measured deployment. Give a run folder or a file of a soak.")
    return measured


def _deployment(line: dict[str, Any], i: int, file: str) -> Deployment | None:
    if "params" in line:
        record = EvaluationRecord.parse(line, f"{file}, line {i + 1}")
        if record.fitness is None:
            return None
        return deployment_of(record, key_of(record.params), anchor=file == "anchors.jsonl" or record.origin == "baseline")
    windows = line.get("n_windows", _SOAK_WINDOWS)
    return Deployment(line["c"], line["f"], line["se"], max(1.0, windows - 1.0), float(i)) if line.get("f") is not None else None


def predicted(deployments: Sequence[Deployment]) -> list[Predicted]:
    """Return for each deployment of a configuration that has others what those, and the rest of the run, predict."""
    found = []
    for i, one in enumerate(deployments):
        others = [*deployments[:i], *deployments[i + 1 :]]
        if any(other.key == one.key for other in others):
            low, high = Evidence(others).prediction(one.key, one.at).interval()
            found.append(Predicted(str(one.key), one.value, low, high))
    return found


def exact_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the binomial interval of Clopper and Pearson (1934)."""
    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1.0 - tail)) if hits < n else 1.0
    return low, high


RATIOS = np.geomspace(0.5, 8.0, 33)
FREEDOMS = (1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0)


def prior(runs: Sequence[Sequence[Deployment]]) -> dict[float, tuple[float, float]]:
    """Return for each number of degrees of freedom the best ratio of the prior, and the logarithm of the marginal likelihood of all runs with it.

    Each run draws its ratio of the variance between deployments to the median variance within from a scaled inverse chi-squared distribution.
    """
    grid = np.geomspace(1e-4, 1e4, 400)
    step = float(np.log(grid[1] / grid[0]))
    logs = []
    for run in runs:
        evidence = Evidence(run)
        logs.append(fit(evidence.rows, grid * evidence.typical).log)
    best: dict[float, tuple[float, float]] = {}
    for freedom in FREEDOMS:
        for ratio in RATIOS:
            scale = freedom * ratio**2 / 2.0
            density = freedom / 2.0 * np.log(scale) - gammaln(freedom / 2.0) - freedom / 2.0 * np.log(grid) - scale / grid
            total = sum(float(np.logaddexp.reduce(log + density)) + np.log(step) for log in logs)
            if freedom not in best or total > best[freedom][1]:
                best[freedom] = (float(ratio), float(total))
    return best
