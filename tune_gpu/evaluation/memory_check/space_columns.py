"""Every configuration of a space at once, one column a parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_gpu.config.targets import Target
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.steps import SteppedRange

CONTINUOUS_POINTS = 11
"""Points at which a continuous parameter, or a range in very many steps, is planned."""
MOST = 1_000_000
"""Greatest number of rows; a larger space is planned as a grid of at most `GRID` rows."""
GRID = 100_000


def space_columns(space: SearchSpace) -> dict[str, np.ndarray]:
    """Return every configuration, as one column of values a parameter; None where the parameter is not active.

    A continuous parameter has `CONTINUOUS_POINTS` points. A space of more than `MOST` rows becomes a grid of at most `GRID`.
    """
    points = _thinned({name: _points(parameter) for name, parameter in space.parameters.items()}, _named(space))
    if not points:
        return {}
    lengths = [len(values) for values in points.values()]
    places = dict(zip(points, np.indices(lengths).reshape(len(lengths), -1), strict=True))
    active = {name: np.ones(places[name].size, bool) for name in points}
    for name, parameter in space.parameters.items():
        for parent, allowed in parameter.when:
            holds = np.array([value in allowed for value in points[parent]], bool)
            active[name] &= active[parent] & holds[places[parent]]
    # Configurations that differ only in inactive parameters are the same one: keep the one with their first values.
    kept = np.logical_and.reduce([active[name] | (places[name] == 0) for name in points])
    return {name: _column(points[name], places[name][kept], active[name][kept]) for name in points}


def is_grid(space: SearchSpace) -> bool:
    """Return True if the columns are a grid through the space instead of all of it."""
    ranges = [parameter.values for parameter in space.parameters.values()]
    return any(values is None or _is_long(values) for values in ranges) or math.prod(map(len, filter(None, ranges))) > MOST


def _named(space: SearchSpace) -> dict[str, set[int]]:
    """Return for each parameter the indices of the values that conditions name."""
    named: dict[str, set[int]] = {name: set() for name in space.parameters}
    for parameter in space.parameters.values():
        for parent, wanted in parameter.when:
            named[parent] |= {index for value in wanted if (index := space.parameters[parent].index_of(value)) is not None}
    return named


def _thinned(points: dict[str, Sequence[Any]], named: dict[str, set[int]]) -> dict[str, tuple[Any, ...]]:
    """Return fewer values: `CONTINUOUS_POINTS` of a long range, and evenly fewer of all if there are too many combinations. Named values stay."""
    places = {name: _places(values, CONTINUOUS_POINTS if _is_long(values) else len(values), named[name]) for name, values in points.items()}
    if _combinations(places) <= MOST:
        return {name: tuple(points[name][place] for place in kept) for name, kept in places.items()}
    most = max(map(len, places.values()))
    while most > 2 and _combinations(places) > GRID:
        most = max(2, int(most * 0.9))
        places = {name: _places(points[name], min(most, len(kept)), named[name]) for name, kept in places.items()}
    for name in reversed(places):  # dozens of parameters
        if _combinations(places) > GRID:
            places[name] = places[name][:1]
    return {name: tuple(points[name][place] for place in kept) for name, kept in places.items()}


def _combinations(lists: Mapping[str, Sequence[Any]]) -> int:
    return math.prod(map(len, lists.values()))


def _places(values: Sequence[Any], most: int, named: set[int]) -> list[int]:
    """Return this many indices, evenly spaced (in the logarithm for a logarithmic range), and the named ones."""
    if len(values) <= most:
        return list(range(len(values)))
    shares = np.linspace(0.0, 1.0, most)
    places = values.nearest(shares) if isinstance(values, SteppedRange) else np.rint(shares * (len(values) - 1))
    return sorted({*map(int, places), *named})


def _is_long(values: Sequence[Any] | None) -> bool:
    return isinstance(values, SteppedRange) and values.many


def active_columns(space: SearchSpace, columns: dict[str, np.ndarray], services: Any) -> dict[str, np.ndarray]:
    """Return the columns by target (`vllm.max_model_len`), with the services' own setting where a parameter is not active."""
    knobs: dict[Target, tuple[Parameter, np.ndarray]] = {}
    for name, parameter in space.parameters.items():
        values = columns[name]
        if parameter.target in knobs:  # conditions keep the two apart
            other = knobs[parameter.target][1]
            values = np.where([value is None for value in values], other, values)
        knobs[parameter.target] = parameter, values
    return {str(target): _with_own_setting(values, parameter, services) for target, (parameter, values) in knobs.items()}


def _with_own_setting(values: np.ndarray, parameter: Parameter, services: Any) -> np.ndarray:
    if values.dtype.kind != "O" or not parameter.when or None in (parameter.values or ()):
        return values
    target = parameter.target
    own = getattr(getattr(services, target.service), target.setting, None) if target.entry is None else None
    if own is None:
        return values
    filled = values.copy()
    filled[[value is None for value in values]] = own
    return _numbers(filled.tolist(), filled)


def _points(parameter: Parameter) -> Sequence[Any]:
    if parameter.values is not None:
        return parameter.values
    spread = np.geomspace if parameter.log else np.linspace
    return tuple(float(value) for value in spread(parameter.low, parameter.high, CONTINUOUS_POINTS))


def _column(points: tuple[Any, ...], places: np.ndarray, active: np.ndarray) -> np.ndarray:
    array = np.empty(len(points), object)
    array[:] = points
    if active.all():
        return _numbers(points, array)[places]
    column = array[places]
    column[~active] = None
    return column


def _numbers(values: Any, array: np.ndarray) -> np.ndarray:
    """Return an array of numbers if all values are numbers, else the given array."""
    return np.asarray(values) if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values) else array
