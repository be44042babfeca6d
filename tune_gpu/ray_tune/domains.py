"""Make a search space from a user's definition for Tune: lists of values, and domains of `ray.tune`."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Quantized, Uniform

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.values import distinct, to_builtin

Given = Sequence[Any] | ParameterSpec | Domain


def flat(given: Mapping[str, Any], names: Container[str] = ()) -> dict[str, Any]:
    """Return nested names joined (`a/b`), as Tune joins them. The value of one of `names` is not flattened, even if it is a mapping.

    Raises:
        UserError: a name is given twice, nested and joined.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        nested = name not in names and isinstance(value, Mapping)
        inner = flat({f"{name}/{part}": one for part, one in value.items()}, names) if nested else {name: value}
        if twice := sorted(inner.keys() & found.keys()):
            raise UserError(f"{twice[0]}: given twice, nested and as a joined name. Give it once.")
        found |= inner
    return found


def specs_of(space: Any) -> dict[str, ParameterSpec]:
    """Return the parameters of a user's space, nested or not. Raise UserError if it is not a space, or cannot be searched."""
    if not isinstance(space, Mapping) or not all(isinstance(name, str) for name in space):
        raise UserError(f"space={space!r}: not a mapping. Give a mapping from the names of the parameters to their values, such as {{'x': [1, 2]}}.")
    given = flat(space)
    refuse_grids("space", given)
    return {name: spec_of(name, values) for name, values in given.items()}


def grids_in(given: Mapping[str, Any]) -> list[str]:
    """Return the names whose values were made by `tune.grid_search`. The names must be flat."""
    return [name for name in given if name.split("/")[-1] == "grid_search"]


def refuse_grids(whose: str, given: Mapping[str, Any]) -> None:
    """Raise UserError if any value was made by `tune.grid_search`."""
    if grids := grids_in(given):
        raise UserError(f"{whose}: {', '.join(grids)}: R-Zero does not search a grid. Use tune.choice.")


def holds_domain(value: Any) -> bool:
    """Return whether this list or mapping contains a domain of Tune at any depth."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(isinstance(one, Domain) or holds_domain(one) for one in inner)


def refuse_domains(what: str, values: Sequence[Any]) -> None:
    """Raise UserError if one of these values contains a domain of Tune, which would be suggested itself instead of a value from it."""
    if inner := [value for value in values if isinstance(value, Domain) or holds_domain(value)]:
        raise UserError(f"{what} ({type(inner[0]).__name__}) cannot be searched. Give values.")


def spec_of(name: str, given: Given) -> ParameterSpec:
    """Return the parameter for any form of definition. Raise UserError for a domain that is neither a set nor a range."""
    if isinstance(given, ParameterSpec):
        return given
    if isinstance(given, (str, bytes)) or not isinstance(given, (Domain, Sequence)):
        raise UserError(f"{name}={given!r}: cannot be searched. Give a list of values, a ParameterSpec, or a domain of ray.tune.")
    if not isinstance(given, Domain):
        refuse_domains(f"{name}: a domain inside a list", given)
        return ParameterSpec(target="", values=list(given))
    sampler = given.get_sampler()
    step = float(sampler.q) if isinstance(sampler, Quantized) else None
    base = sampler.sampler if isinstance(sampler, Quantized) else sampler
    if isinstance(given, Categorical) and isinstance(base, Uniform):
        values = distinct(list(map(to_builtin, given.categories)))  # Tune accepts duplicates
        refuse_domains(f"{name}: a domain inside tune.choice", values)
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        return ParameterSpec(target="", values=values, kind="ordinal" if numbers and values == sorted(values) else "categorical")
    log = isinstance(base, LogUniform)
    if isinstance(given, (Float, Integer)) and isinstance(base, (Uniform, LogUniform)) and not (log and step):
        whole = isinstance(given, Integer)
        high = given.upper - 1 if whole and step is None else given.upper  # Tune's integer ranges exclude `upper`, unless they have a step
        return ParameterSpec(target="", low=to_builtin(given.lower), high=to_builtin(high), step=step, log=log, integer=whole)
    raise UserError(
        f"{name}: {type(given).__name__} with {type(base).__name__.lstrip('_')} cannot be searched. Use tune.choice, uniform, quniform, loguniform, "
        "randint, qrandint or lograndint."
    )
