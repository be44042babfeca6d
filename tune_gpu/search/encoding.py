"""Encode configurations as rows of numbers ("codes"), so that thousands of offspring can be made and compared at once.

A code is the index of a value (parameters with values), the position in [0, 1] (ranges; logarithmic for a log range), or `INACTIVE`
if a condition switches the parameter off. A range in very many steps is coded as a range whose positions are those of its steps. Two rows
are the same configuration only if they are equal to the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tune_gpu.search.space import Params, SearchSpace
from tune_gpu.search.steps import SteppedRange

Array = NDArray[np.float64]
INACTIVE = -1.0
_STEP = 0.1
_RANGE_STEPS = (-0.2, -0.05, -0.01, -0.002, 0.002, 0.01, 0.05, 0.2)
_NEXT = (-1e-18, 1e-18)
"""Further moves of a range in steps: to the next step."""
_DIGITS = 9
"""Decimals of a position in a range. Positions that differ less are the same."""
_TABLES: WeakKeyDictionary[SearchSpace, tuple[Array | None, int]] = WeakKeyDictionary()
"""Space -> its table, so that a long list is encoded once, however many searches use the space."""


class Encoding:
    """Codes of one space.

    Args:
        space: the space of the configurations.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.parameters = list(space.parameters.values())
        self.n = len(self.parameters)
        self._index = {parameter.name: i for i, parameter in enumerate(self.parameters)}
        self._steps = {i: p.values for i, p in enumerate(self.parameters) if isinstance(p.values, SteppedRange)}
        self._rounded = {i: steps for i, steps in self._steps.items() if steps.many}
        self._logs = {i: steps.positions(np.arange(len(steps), dtype=np.float64)) for i, steps in self._steps.items() if i not in self._rounded}
        self.sizes = np.array([0 if p.values is None or i in self._rounded else len(p.values) for i, p in enumerate(self.parameters)])
        """Number of values of each parameter; 0 for a range, also for one in very many steps."""
        self._ordered = np.array([p.ordered for p in self.parameters])
        self.continuous = not self.sizes.all()
        """Whether any parameter is a range."""
        self._ranges = np.array([p.values is None for p in self.parameters])
        self._conditions = [
            [(self._index[parent], np.array([self._code(self._index[parent], v) for v in values])) for parent, values in p.when]
            for p in self.parameters
        ]
        self._columns = [self.n_features_of(i) for i in range(self.n)]
        self.groups = np.repeat(np.arange(self.n), self._columns)
        """Feature column -> parameter."""
        self._moves = self._all_moves()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the tables from the space, because an earlier version's pickle has other ones."""
        self.__dict__.update(Encoding(state["space"]).__dict__)

    def _all_moves(self) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
        """Return the possible moves: column, value or step, and whether it is a step."""
        ways = [range(size) if size else _RANGE_STEPS + (_NEXT if i in self._rounded else ()) for i, size in enumerate(self.sizes)]
        moves = [(i, to, not self.sizes[i]) for i, way in enumerate(ways) for to in way]
        column, to, relative = zip(*moves, strict=True)
        return np.array(column), np.array(to, dtype=float), np.array(relative)

    def n_features_of(self, i: int) -> int:
        """Return the number of features of a parameter: one for ordered and continuous parameters, one per value for categorical ones."""
        p = self.parameters[i]
        return 1 if p.values is None or p.ordered else len(p.values)

    def _code(self, i: int, value: Any) -> float:
        p = self.parameters[i]
        if p.values is not None:
            index = p.index_of(value)
            if index is None:
                raise KeyError(f"{p.name}={value}")
            return float(self._rounded[i].positions(np.array([float(index)]))[0]) if i in self._rounded else float(index)
        if p.high <= p.low:
            return 0.0
        if p.log:
            return (math.log(value) - math.log(p.low)) / (math.log(p.high) - math.log(p.low))
        return (value - p.low) / (p.high - p.low)

    def encode(self, params: Params) -> Array:
        """Return the row of a configuration."""
        return np.array([self._code(i, params[p.name]) if p.name in params else INACTIVE for i, p in enumerate(self.parameters)])

    def decode(self, row: Array) -> dict[str, Any]:
        """Return the configuration of a row."""
        params: dict[str, Any] = {}
        for i, (p, code) in enumerate(zip(self.parameters, row.tolist(), strict=True)):
            if code == INACTIVE:
                continue
            if i in self._rounded:
                params[p.name] = self._rounded[i][int(self._rounded[i].nearest(np.array([code]))[0])]
            elif p.values is not None:
                params[p.name] = p.values[int(code)]
            elif p.log:
                params[p.name] = min(p.high, max(p.low, math.exp(math.log(p.low) + code * (math.log(p.high) - math.log(p.low)))))
            else:
                params[p.name] = min(p.high, max(p.low, p.low + code * (p.high - p.low)))
        return params

    def name(self, row: Array) -> bytes:
        """Return bytes that are equal for rows of the same configuration. Positions in a range that differ only by rounding (a step there
        and back) are equal."""
        return (np.where(self._ranges, np.round(row, _DIGITS) + 0.0, row) if self.continuous else row).tobytes()

    def features(self, codes: Array) -> Array:
        """Return features in [0, 1], of shape (n, features), for codes of shape (n, parameters). Different categories are at distance
        1. An inactive parameter is in the middle."""
        columns: list[Array] = []
        for i, p in enumerate(self.parameters):
            code = codes[:, i]
            if i in self._logs:
                columns.append(np.where(code == INACTIVE, 0.5, self._logs[i][code.astype(int)])[:, None])
            elif p.values is None or p.ordered:
                scale = 1.0 / max(1, self.sizes[i] - 1) if self.sizes[i] else 1.0
                columns.append(np.where(code == INACTIVE, 0.5, code * scale)[:, None])
            else:
                columns.append((code[:, None] == np.arange(len(p.values))) * math.sqrt(0.5))
        return np.concatenate(columns, axis=1)

    def random(self, count: int, rng: np.random.Generator) -> Array:
        """Return `count` rows, drawn uniformly and regardless of known constraints."""
        return self.settle(np.full((count, self.n), INACTIVE), rng)

    def settle(self, codes: Array, rng: np.random.Generator) -> Array:
        """Change rows in place: deactivate parameters whose condition does not hold, and draw a value for inactive ones whose condition
        holds."""
        for i, conditions in enumerate(self._conditions):
            column = codes[:, i]
            active = np.ones(len(codes), dtype=bool)
            for parent, allowed in conditions:
                exactly = self.parameters[parent].values is not None
                active &= np.isin(codes[:, parent], allowed) if exactly else np.isclose(codes[:, parent, None], allowed[None, :]).any(axis=1)
            column[~active] = INACTIVE
            empty = active & (column == INACTIVE)
            if empty.any():
                column[empty] = self._draw(i, int(empty.sum()), rng)
            if i in self._rounded:
                column[active] = self._rounded[i].positions(self._rounded[i].nearest(column[active]))
        return codes

    def _draw(self, i: int, count: int, rng: np.random.Generator) -> Array:
        if i in self._steps:
            drawn = self._steps[i].drawn(rng.random(count))
            return self._rounded[i].positions(drawn) if i in self._rounded else drawn
        return rng.integers(self.sizes[i], size=count).astype(float) if self.sizes[i] else rng.random(count)

    def offspring(self, parents: Array, count: int, rng: np.random.Generator) -> Array:
        """Return children: uniform crossover of random pairs of parents, then one or more mutations (a step along an order, or any other
        category)."""
        pair = rng.integers(len(parents), size=(2, count))
        take = rng.random((count, self.n)) < 0.5
        codes = np.where(take, parents[pair[0]], parents[pair[1]])
        moves = 1 + rng.geometric(0.6, size=count).clip(max=max(1, self.n - 1)) - 1
        chosen = np.argsort(rng.random((count, self.n)), axis=1)
        for position in range(int(moves.max(initial=0))):
            rows = np.nonzero(moves > position)[0]
            self._mutate(codes, rows, chosen[rows, position], rng)
        return self.settle(codes, rng)

    def _mutate(self, codes: Array, rows: NDArray[np.int64], columns: NDArray[np.int64], rng: np.random.Generator) -> None:
        active = codes[rows, columns] != INACTIVE
        rows, columns = rows[active], columns[active]
        here, size, count = codes[rows, columns], self.sizes[columns], len(rows)
        step = rng.geometric(0.6, count) * rng.choice([-1.0, 1.0], count)
        moved = here + step
        along = np.where((moved < 0) | (moved > size - 1), here - step, moved).clip(0, np.maximum(size - 1, 0))
        other = (here + rng.integers(1, np.maximum(size, 2))) % np.maximum(size, 1)
        there = np.where(self._ordered[columns], along, other)
        if self.continuous:
            there = np.where(size == 0, np.clip(here + rng.normal(0.0, _STEP, count), 0.0, 1.0), there)
        for i in self._steps:
            along_it = columns == i
            there[along_it] = self._moved(i, here[along_it], rng.normal(0.0, _STEP, int(along_it.sum())))
        codes[rows, columns] = there

    def _moved(self, i: int, codes: Array, by: Array) -> Array:
        """Return codes of a range in steps, each moved by a distance in positions to another step."""
        if i in self._rounded:
            return self._rounded[i].positions(self._rounded[i].moved(self._rounded[i].nearest(codes), by))
        return self._steps[i].moved(codes, by)

    def neighbours(self, rows: Array, rng: np.random.Generator) -> Array:
        """Return all rows that differ from one of the rows in one parameter (any value of it; small and large steps in a range)."""
        column, to, relative = self._moves
        here = rows[:, column]
        there = np.where(relative, np.clip(here + to, 0.0, 1.0), to)
        for i in self._rounded:
            moves = np.flatnonzero(column == i)
            there[:, moves] = self._moved(i, rows[:, i].repeat(len(moves)), np.tile(to[moves], len(rows))).reshape(len(rows), len(moves))
        which, move = np.nonzero((here != INACTIVE) & (relative | (there != here)))
        if not len(which):
            return rows
        found = rows[which]
        found[np.arange(len(found)), column[move]] = there[which, move]
        return self.settle(found, rng)

    def masses(self, table: Array) -> Array | None:
        """Return the probability of each of these rows in random draws, or None if all are equally likely, as without a log range."""
        if not self._logs:
            return None
        masses = np.ones(len(table))
        for i in self._logs:
            codes = table[:, i]
            masses *= np.where(codes == INACTIVE, 1.0, self._steps[i].masses()[codes.astype(int)])
        return masses

    def table(self, limit: int) -> Array | None:
        """Return the rows of all configurations, regardless of known constraints, if there are at most `limit`, else None."""
        if self.space not in _TABLES:
            _TABLES[self.space] = (self._table(limit), limit)
        table, seen = _TABLES[self.space]
        return table if seen == limit else self._table(limit)

    def _table(self, limit: int) -> Array | None:
        if self.space.listed is not None:
            return self._listed(self.space.listed)
        bound = math.inf if self.continuous else math.prod(int(size) for size in self.sizes)
        if bound > limit:
            return None
        if not any(self._conditions):
            grids = np.meshgrid(*(np.arange(float(size)) for size in self.sizes), indexing="ij")
            return np.stack([grid.ravel() for grid in grids], axis=1)
        rows = np.array(list(itertools.product(*(range(int(size)) for size in self.sizes))), dtype=float)
        for i, conditions in enumerate(self._conditions):
            for parent, allowed in conditions:
                rows[~np.isin(rows[:, parent], allowed), i] = INACTIVE
        return np.unique(rows, axis=0)

    def _listed(self, listed: Sequence[Params]) -> Array:
        rows = np.full((len(listed), self.n), INACTIVE)
        for i, p in enumerate(self.parameters):
            rows[:, i] = [self._code(i, params[p.name]) if p.name in params else INACTIVE for params in listed]
        return rows
