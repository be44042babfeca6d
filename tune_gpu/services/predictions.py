"""Predictions for every candidate of a space at once, as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tune_gpu.services.memory_values import Beside, MemoryVerdict, Prediction

VERDICTS = (MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN, MemoryVerdict.INFEASIBLE, MemoryVerdict.NOT_MODELLED)
CODE = {verdict: np.int8(code) for code, verdict in enumerate(VERDICTS)}
Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Setting of a service (`max_model_len`, `extra_args.seed`) -> its value in every candidate."""


@dataclass(frozen=True)
class BesideMany:
    """Memory that the other services of each candidate hold when an engine starts. Shapes (n,)."""

    parts_mib: Mapping[str, np.ndarray] = field(default_factory=dict)
    sigma_mib: np.ndarray | float = 0.0

    @property
    def total_mib(self) -> np.ndarray | float:
        """Return the sum of the best estimates of each candidate, in MiB."""
        return sum(self.parts_mib.values(), start=0.0)

    def rows(self, rows: np.ndarray) -> BesideMany:
        """Return that of some candidates."""
        sigma = self.sigma_mib[rows] if isinstance(self.sigma_mib, np.ndarray) else self.sigma_mib
        return BesideMany({name: mib[rows] for name, mib in self.parts_mib.items()}, sigma)

    def at(self, index: int) -> Beside:
        """Return that of one candidate."""
        sigma = self.sigma_mib[index] if isinstance(self.sigma_mib, np.ndarray) else self.sigma_mib
        return Beside({name: float(mib[index]) for name, mib in self.parts_mib.items()}, float(sigma))


@dataclass(frozen=True)
class Predictions:
    """One prediction for each candidate of a space, in order. Shapes (n,); NaN where it is not modelled."""

    verdict: np.ndarray
    """Index into `VERDICTS`."""
    kv_cache_tokens: np.ndarray
    max_concurrency: np.ndarray
    headroom_mib: np.ndarray
    shortfall_mib: np.ndarray
    takes_mib: np.ndarray
    """What an engine holds once it runs; 0 where that is not known."""
    explain: Callable[[int], Prediction]
    """Returns the whole prediction of one candidate, with its reason."""

    def __len__(self) -> int:
        return len(self.verdict)

    def count(self, verdict: MemoryVerdict) -> int:
        """Return how many candidates have this verdict."""
        return int((self.verdict == CODE[verdict]).sum())

    @property
    def allowed(self) -> np.ndarray:
        """Return which candidates may be launched: all but the infeasible."""
        return self.verdict != CODE[MemoryVerdict.INFEASIBLE]

    def refused(self) -> list[int]:
        """Return the indices of the infeasible candidates, in order."""
        return [int(index) for index in np.flatnonzero(~self.allowed)]

    def verdict_of(self, index: int) -> MemoryVerdict:
        """Return the verdict of one candidate."""
        return VERDICTS[int(self.verdict[index])]


def groups_of(grouping: Mapping[str, Sequence[Any] | np.ndarray], count: int) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return groups of rows that agree in every grouping column, each with the values that they agree on."""
    code = np.zeros(count, np.int64)
    kinds: list[tuple[str, list[Any]]] = []
    for name, values in grouping.items():
        codes, kept = _coded(values)
        kinds.append((name, kept))
        code = code * len(kept) + codes
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    groups = []
    for rows in np.split(order, starts[1:]):
        rest = int(code[rows[0]])
        shared: dict[str, Any] = {}
        for name, kept in reversed(kinds):
            rest, place = divmod(rest, len(kept))
            shared[name] = kept[place]
        groups.append((rows, shared))
    return groups


def _coded(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Return the index of each row's value, and the different values of the column."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        unique, codes = np.unique(values, return_inverse=True)
        return codes, unique.tolist()
    seen: dict[Any, int] = {}
    kept: list[Any] = []

    def code_of(value: Any) -> int:
        try:
            key: Any = (type(value), value)
            place = seen.setdefault(key, len(kept))
        except TypeError:  # a list or a mapping
            place = seen.setdefault(repr(value), len(kept))
        if place == len(kept):
            kept.append(value)
        return place

    return np.fromiter(map(code_of, values), np.int64, len(values)), kept
