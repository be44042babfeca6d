"""Check the points that a user gives a search."""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from ray.tune.search.sample import Domain

from tune_gpu.common.errors import UserError
from tune_gpu.ray_tune.compat import REPEATER_KEY, is_placeholder
from tune_gpu.ray_tune.domains import flat, grids_in, holds_domain
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.values import CLOSE, equal, to_builtin

logger = logging.getLogger(__name__)


def searched_in(
    where: str, point: Mapping[str, Any], names: Container[str], constants: Mapping[str, Any], *, of_another_search: bool = False
) -> dict[str, Any]:
    """Return the values of the parameters in a point, flat.

    Args:
        where: name of the point in messages.
        point: nested or flat. It may be the whole configuration of a trial, including its constants.
        names: names of the parameters.
        constants: constants of Tune's `param_space`, flat.
        of_another_search: whether the point is from an earlier search, which may have had other constants. An unknown name is then left out
            with a warning.

    Raises:
        UserError: a name is unknown, a constant has another value, or there is a domain or a grid in place of a value.
    """
    given = {name: value for name, value in flat(point, names).items() if name != REPEATER_KEY}  # a `Repeater` adds its own key
    if grids := [name for name in grids_in(given) if name not in names]:
        raise UserError(f"{where}.{grids[0]}: a grid is not a value. Give one value, or one point for each.")
    for name, value in given.items():
        if isinstance(value, Domain) or holds_domain(value):
            raise UserError(f"{where}.{name}: a domain is not a value. Give one of its values, or leave the name out to have it drawn.")
        if name in names:
            continue
        if name in constants:
            _check_constant(f"{where}.{name}", value, constants[name])
        elif of_another_search:
            logger.warning("%s.%s: neither a parameter nor a constant of this search, left out", where, name)
        else:
            raise UserError(f"{where}.{name}: neither a parameter nor a constant of param_space. Leave it out, or correct its name.")
    return {name: value for name, value in given.items() if name in names}


def _check_constant(name: str, value: Any, constant: Any) -> None:
    if is_placeholder(constant) and not is_placeholder(value):
        logger.warning("%s: this constant cannot be compared, because Tune has replaced it by a placeholder; the trial gets the value in param_space", name)
    elif not _same(to_builtin(value), to_builtin(constant)):
        raise UserError(f"{name}={value}: param_space has the constant {constant}. Leave it out, or make it a parameter.")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=CLOSE)
    return equal(one, other)


def completed(space: SearchSpace, point: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the point with missing parameters drawn at random. Parameters in the conditions of a given one are drawn so that it is active.

    An invalid value is kept, so that the space refuses it.
    """
    given = dict(point)
    for name in reversed(space.names):  # a condition refers to an earlier parameter
        if name not in given:
            for_it = [dict(space.parameters[other].when)[name] for other in given if other in space.parameters and name in dict(space.parameters[other].when)]
            fitting = [value for value in (for_it[0] if for_it else ()) if all(space.parameters[name].among(value, values) for values in for_it)]
            if fitting:
                given[name] = fitting[int(rng.integers(len(fitting)))]
    return {**space.repaired(given, rng), **given}
