"""The search space: configurations with a value for each parameter whose condition holds, within known constraints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.steps import SteppedRange
from tune_gpu.search.values import PLAIN, described, to_builtin

Params = Mapping[str, Any]


class SearchSpace:
    """A search space. A configuration names every parameter whose condition holds, and no others."""

    def __init__(
        self, parameters: list[Parameter], allowed: Callable[[Params], bool] | None = None, configurations: Sequence[Params] | None = None,
    ) -> None:
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self._rule = allowed
        self.listed = [dict(params) for params in configurations] if configurations is not None else None
        """The only configurations of the space, if they were given as a list; else None."""
        self._members = {self.key(params) for params in self.listed} if self.listed is not None else None

    @classmethod
    def from_specs(
        cls, specs: Mapping[str, ParameterSpec], allowed: Callable[[Params], bool] | None = None, configurations: Sequence[Params] | None = None,
    ) -> SearchSpace:
        """Return the space of these specs. `allowed` is a known constraint, for example the verdict of the preflight check.
        `configurations` is another constraint: a list of the only configurations that exist, for example a measured table.

        Raises:
            UserError: there is no parameter, a parameter has no values, or a condition refers to a later or unknown parameter.
        """
        if not specs:
            raise UserError("parameters: the space is empty. Name at least one parameter.")
        parameters = [Parameter.from_spec(name, spec) for name, spec in specs.items()]
        known: dict[str, Parameter] = {}
        for parameter in parameters:
            for parent, values in parameter.when:
                if parent not in known:
                    raise UserError(f"parameters.{parameter.name}.when.{parent}: not an earlier parameter. Use {', '.join(known) or 'none'}.")
                if not values:
                    raise UserError(f"parameters.{parameter.name}.when.{parent}: is empty, so the parameter would never exist. Use {known[parent].allowed()}.")
                for value in values:
                    if value not in known[parent]:
                        raise UserError(f"parameters.{parameter.name}.when.{parent}={value}: not allowed. Use {known[parent].allowed()}.")
            known[parameter.name] = parameter
        if configurations is not None and not configurations:
            raise UserError("configurations: the list is empty. Give at least one.")
        return cls(parameters, allowed, configurations)

    def _allowed(self, params: Params) -> bool:
        return (self._members is None or self.key(params) in self._members) and (self._rule is None or self._rule(params))

    @property
    def names(self) -> list[str]:
        """Return the names of the parameters in order."""
        return list(self.parameters)

    @property
    def size(self) -> float:
        """Return the number of configurations, including forbidden ones; infinite with a continuous parameter."""
        if self.listed is not None:
            return len(self.listed)
        if any(parameter.values is None for parameter in self.parameters.values()):
            return math.inf
        return self._count({}, list(self.parameters.values()))

    def _count(self, params: dict[str, Any], rest: list[Parameter]) -> int:
        """Return the number of configurations that begin with these values. Only values that a condition names are enumerated."""
        if not rest:
            return 1
        parameter, later = rest[0], rest[1:]
        if not self.active(parameter, params):
            return self._count(params, later)
        values = parameter.values or ()
        named_values = [value for other in later for parent, wanted in other.when if parent == parameter.name for value in wanted]
        named = {found for value in named_values if (found := parameter.index_of(value)) is not None}
        total = sum(self._count({**params, parameter.name: values[i]}, later) for i in named)
        others = len(values) - len(named)
        return total + (others * self._count({**params, parameter.name: ...}, later) if others else 0)

    def active(self, parameter: Parameter, params: Params) -> bool:
        """Return whether the parameter exists, given the values of the earlier ones."""
        return all(parent in params and self.parameters[parent].among(params[parent], values) for parent, values in parameter.when)

    def check(self, params: Params) -> None:
        """Raise UserError for an invalid configuration. The message has the key, the given value and the allowed ones."""
        for name in params:
            if name not in self.parameters:
                raise UserError(f"{name}: no such parameter. Use one of {', '.join(self.names)}.")
        for name, parameter in self.parameters.items():
            if not self.active(parameter, params):
                if name in params:
                    raise UserError(f"{name}={params[name]}: the parameter exists only if {dict(parameter.when)}")
            elif name not in params:
                raise UserError(f"{name}: missing. Use {parameter.allowed()}.")
            elif params[name] not in parameter:
                raise UserError(f"{name}={params[name]}: not allowed. Use {parameter.allowed()}.")

    def canonical(self, params: Params) -> dict[str, Any]:
        """Return the configuration in the space's own values, NumPy's scalars as Python's. Raise UserError as `check` does."""
        own = {name: self.parameters[name].canonical(to_builtin(value)) if name in self.parameters else value for name, value in params.items()}
        self.check(own)
        return own

    def saved(self, params: Params) -> dict[str, Any]:
        """Return the configuration as JSON values. A value that JSON would change is replaced by its index."""
        return {name: value if type(value) in PLAIN else {"index": self.parameters[name].index_of(value)} for name, value in params.items()}

    def loaded(self, saved: Params) -> dict[str, Any]:
        """Return the configuration for saved JSON values, in the space's own values. Raise UserError as `check` does."""
        return self.canonical({name: self._at(name, value["index"]) if isinstance(value, dict) and set(value) == {"index"} else value
                         for name, value in saved.items()})

    def _at(self, name: str, index: int) -> Any:
        values = self.parameters[name].values if name in self.parameters else None
        if values is None or not 0 <= index < len(values):
            raise UserError(f"{name}: there is no value with the index {index}")
        return values[index]

    def __contains__(self, params: object) -> bool:
        try:
            self.check(params)  # type: ignore[arg-type]
        except (UserError, TypeError):
            return False
        return self._allowed(params)  # type: ignore[arg-type]

    def key(self, params: Params) -> Hashable:
        """Return a key that is equal for equal configurations, whatever the order of their parameters."""
        return tuple(parameter.key(params[name]) if name in params else ... for name, parameter in self.parameters.items())

    def repaired(self, values: Params, rng: np.random.Generator) -> dict[str, Any]:
        """Return a configuration with these values if they are valid, and random values for the other parameters."""
        params: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if self.active(parameter, params):
                params[name] = values[name] if name in values and values[name] in parameter else parameter.sample(rng)
        return params

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return a random configuration, regardless of constraints (see `allows`)."""
        if self.listed is not None:
            return dict(self.listed[int(rng.integers(len(self.listed)))])
        return self.repaired({}, rng)

    def allows(self, params: Params) -> bool:
        """Return whether no known constraint forbids the configuration."""
        return self._allowed(params)

    def mutate(self, params: Params, rng: np.random.Generator) -> dict[str, Any]:
        """Return the configuration with one parameter moved."""
        name = list(params)[int(rng.integers(len(params)))]
        return self.repaired({**params, name: self.parameters[name].mutate(params[name], rng)}, rng)

    def neighbours(self, params: Params) -> list[dict[str, Any]]:
        """Return all allowed configurations that differ in one parameter by one step. A parameter that becomes active takes its first
        value."""
        found = []
        for name in params:
            for value in self.parameters[name].neighbours(params[name]):
                moved: dict[str, Any] = {}
                for other, parameter in self.parameters.items():
                    if self.active(parameter, moved):
                        given = value if other == name else params.get(other)
                        moved[other] = given if given in parameter else (parameter.values or (parameter.low,))[0]
                if self._allowed(moved):
                    found.append(moved)
        return found

    def enumerate(self) -> Iterator[dict[str, Any]]:
        """Return every allowed configuration. Raise UserError for a space with a continuous parameter."""
        if math.isinf(self.size):
            raise UserError("parameters: a space with a continuous parameter cannot be enumerated. Give `values` or a `step`.")
        return (params for params in self._all() if self._allowed(params))

    def _all(self) -> Iterator[dict[str, Any]]:
        if self.listed is not None:
            yield from (dict(params) for params in self.listed)
            return
        if not any(parameter.when for parameter in self.parameters.values()):
            for values in itertools.product(*(parameter.values or () for parameter in self.parameters.values())):
                yield dict(zip(self.parameters, values, strict=True))
            return
        yield from self._extend({}, list(self.parameters.values()))

    def _extend(self, params: dict[str, Any], rest: list[Parameter]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield params
        elif self.active(rest[0], params):
            for value in rest[0].values or ():
                yield from self._extend({**params, rest[0].name: value}, rest[1:])
        else:
            yield from self._extend(params, rest[1:])

    def fingerprint(self) -> str:
        """Return a hash of the space. A saved search can be resumed only in the same space."""
        import hashlib

        listed = sorted({repr(tuple(described(params.get(name, ...)) for name in self.parameters)) for params in self.listed or ()})
        parameters = [
            (p.name, p.values if p.values is None or isinstance(p.values, SteppedRange) else tuple(map(described, p.values)), p.low, p.high, p.log, p.ordered,
             tuple((parent, tuple(map(described, values))) for parent, values in p.when))
            for p in self.parameters.values()]
        text = repr([listed] * (self.listed is not None) + parameters)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
