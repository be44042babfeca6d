"""Every configuration of a space at once, as one column for each parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from tune_gpu.space import Parameter, SearchSpace

CONTINUOUS_POINTS = 11
"""A continuous parameter is planned at this many points."""


def space_columns(space: SearchSpace) -> dict[str, np.ndarray]:
    """Every configuration: the parameters' values by name, null where one is not active. A continuous one stands at `CONTINUOUS_POINTS` points."""
    points = {name: _points(parameter) for name, parameter in space.parameters.items()}
    if not points:
        return {}
    lengths = [len(values) for values in points.values()]
    places = dict(zip(points, np.indices(lengths).reshape(len(lengths), -1), strict=True))
    active = {name: np.ones(places[name].size, bool) for name in points}
    for name, parameter in space.parameters.items():
        for parent, allowed in parameter.when:
            holds = np.array([value in allowed for value in points[parent]], bool)
            active[name] &= active[parent] & holds[places[parent]]
    # Configurations that differ only in what is not active are one: the one with its first value is kept.
    kept = np.logical_and.reduce([active[name] | (places[name] == 0) for name in points])
    return {name: _column(points[name], places[name][kept], active[name][kept]) for name in points}


def active_columns(space: SearchSpace, columns: dict[str, np.ndarray], services: Any) -> dict[str, np.ndarray]:
    """By target (`vllm.max_model_len`): the same, with the services' own setting where a parameter is not active."""
    return {parameter.target: _with_own_setting(columns[name], parameter, services) for name, parameter in space.parameters.items()}


def _with_own_setting(values: np.ndarray, parameter: Parameter, services: Any) -> np.ndarray:
    if values.dtype.kind != "O" or not parameter.when or None in (parameter.values or ()):
        return values
    service, _, key = parameter.target.partition(".")
    own = getattr(getattr(services, service), key, None)
    if own is None:
        return values
    filled = values.copy()
    filled[[value is None for value in values]] = own
    return _numbers(filled.tolist(), filled)


def _points(parameter: Parameter) -> tuple[Any, ...]:
    if parameter.values is not None:
        return tuple(parameter.values)
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
    """As an array of numbers where they all are."""
    return np.asarray(values) if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values) else array
