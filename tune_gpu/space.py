"""What may vary: parameters, their bounds and order, and which configurations exist."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_gpu.config import ParameterSpec
from tune_gpu.errors import UserError

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One knob: a tuple of values (ordered or not), or a continuous range."""

    name: str
    target: str
    values: tuple[Any, ...] | None
    """Null for a continuous range."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    ordered: bool = True
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """It exists only where each of these parameters has one of these values."""

    @classmethod
    def from_spec(cls, name: str, spec: ParameterSpec) -> Parameter:
        """Raises UserError for a spec that is no set of values and no range."""
        if spec.kind not in ("ordinal", "categorical"):
            raise UserError(f"parameters.{name}.kind={spec.kind}: allowed are ordinal, categorical")
        when = tuple((parent, tuple(values)) for parent, values in spec.when.items())
        if spec.values is not None:
            values = tuple(spec.values)
            if not values:
                raise UserError(f"parameters.{name}.values is empty: give at least one value")
            if len({repr(value) for value in values}) != len(values):
                raise UserError(f"parameters.{name}.values={list(values)}: a value stands there twice")
            return cls(name, spec.target, values, ordered=spec.kind == "ordinal", when=when)
        return cls._range(name, spec, when)

    @classmethod
    def _range(cls, name: str, spec: ParameterSpec, when: tuple[tuple[str, tuple[Any, ...]], ...]) -> Parameter:
        low, high = spec.low, spec.high
        if low is None or high is None:
            raise UserError(f"parameters.{name}: give `values`, or both `low` and `high`")
        if not low <= high or (spec.log and low <= 0):
            raise UserError(f"parameters.{name}: low={low}, high={high}: allowed is low <= high{', low > 0 for log' if spec.log else ''}")
        step = spec.step or (1.0 if spec.integer and not spec.log else None)
        if step is not None:
            if step <= 0:
                raise UserError(f"parameters.{name}.step={step}: allowed is above 0")
            grid = [low + index * step for index in range(math.floor((high - low) / step + 1e-9) + 1)]
            return cls(name, spec.target, tuple(int(v) if spec.integer else round(v, 12) for v in grid), when=when)
        if spec.integer:
            return cls(name, spec.target, tuple(range(int(low), int(high) + 1)), when=when)
        return cls(name, spec.target, None, float(low), float(high), spec.log, when=when)

    def __contains__(self, value: object) -> bool:
        if self.values is not None:
            return any(value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in self.values)
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def allowed(self) -> str:
        """For an error message."""
        return ", ".join(map(str, self.values)) if self.values is not None else f"{self.low:g} to {self.high:g}"

    def sample(self, rng: np.random.Generator) -> Any:
        """A random value: uniform, in the logarithm for a log range."""
        if self.values is not None:
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            return float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def mutate(self, value: Any, rng: np.random.Generator) -> Any:
        """Another value near this one: the next in order, any other if there is no order, a normal step (a tenth of the range) in a range."""
        near = self.neighbours(value)
        if near:
            return near[int(rng.integers(len(near)))]
        if self.values is not None:
            return value
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        moved = min(high, max(low, (math.log(value) if self.log else value) + float(rng.normal(0.0, 0.1 * (high - low)))))
        return float(np.exp(moved)) if self.log else moved

    def neighbours(self, value: Any) -> list[Any]:
        """The values next to this one; of a categorical parameter all others; of a range none (there are too many)."""
        if self.values is None:
            return []
        index = self.values.index(value)
        if not self.ordered:
            return [other for other in self.values if other != value]
        return [self.values[i] for i in (index - 1, index + 1) if 0 <= i < len(self.values)]


class SearchSpace:
    """Which configurations exist. A configuration names every parameter whose condition holds, and no other."""

    def __init__(
        self, parameters: list[Parameter], allowed: Callable[[Params], bool] | None = None, configurations: Sequence[Params] | None = None,
    ) -> None:
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self._rule = allowed
        self.listed = [dict(params) for params in configurations] if configurations is not None else None
        """The only configurations that exist, where they are given as a list; else null."""
        self._members = {self.key(params) for params in self.listed} if self.listed is not None else None

    @classmethod
    def from_specs(
        cls, specs: Mapping[str, ParameterSpec], allowed: Callable[[Params], bool] | None = None, configurations: Sequence[Params] | None = None,
    ) -> SearchSpace:
        """From the configuration; `allowed` is a known constraint (the preflight's verdict, say); `configurations` is another, as a list
        of the only ones that exist (a measured table, say).

        Raises:
            UserError: no parameter, a parameter without values, or a condition on what comes later or does not exist.
        """
        if not specs:
            raise UserError("parameters: the space is empty; name at least one parameter")
        parameters = [Parameter.from_spec(name, spec) for name, spec in specs.items()]
        known: dict[str, Parameter] = {}
        for parameter in parameters:
            for parent, values in parameter.when:
                if parent not in known:
                    raise UserError(f"parameters.{parameter.name}.when.{parent}: allowed are parameters that stand before it: {', '.join(known) or 'none'}")
                for value in values:
                    if value not in known[parent]:
                        raise UserError(f"parameters.{parameter.name}.when.{parent}={value}: allowed: {known[parent].allowed()}")
            known[parameter.name] = parameter
        if configurations is not None and not configurations:
            raise UserError("configurations: the list is empty; give at least one")
        return cls(parameters, allowed, configurations)

    def _allowed(self, params: Params) -> bool:
        return (self._members is None or self.key(params) in self._members) and (self._rule is None or self._rule(params))

    @property
    def names(self) -> list[str]:
        """Of the parameters, in order."""
        return list(self.parameters)

    @property
    def size(self) -> float:
        """Number of configurations, those that a constraint forbids included; infinite with a continuous parameter."""
        if self.listed is not None:
            return len(self.listed)
        if any(parameter.values is None for parameter in self.parameters.values()):
            return math.inf
        if not any(parameter.when for parameter in self.parameters.values()):
            return math.prod(len(parameter.values or ()) for parameter in self.parameters.values())
        return sum(1 for _ in self._all())

    def active(self, parameter: Parameter, params: Params) -> bool:
        """Whether the parameter exists beside these values of those before it."""
        return all(parent in params and params[parent] in values for parent, values in parameter.when)

    def check(self, params: Params) -> None:
        """Raises UserError that names the key, what was given and what is allowed."""
        for name in params:
            if name not in self.parameters:
                raise UserError(f"{name}: no such parameter; allowed: {', '.join(self.names)}")
        for name, parameter in self.parameters.items():
            if not self.active(parameter, params):
                if name in params:
                    raise UserError(f"{name}={params[name]}: it exists only where {dict(parameter.when)}")
            elif name not in params:
                raise UserError(f"{name} is missing; allowed: {parameter.allowed()}")
            elif params[name] not in parameter:
                raise UserError(f"{name}={params[name]}: allowed: {parameter.allowed()}")

    def own(self, params: Params) -> dict[str, Any]:
        """The configuration, NumPy's scalars as Python's own: they would be no JSON. Raises UserError as `check`."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}
        self.check(plain)
        return plain

    def __contains__(self, params: object) -> bool:
        try:
            self.check(params)  # type: ignore[arg-type]
        except (UserError, TypeError):
            return False
        return self._allowed(params)  # type: ignore[arg-type]

    def key(self, params: Params) -> Hashable:
        """Equal for equal configurations, whatever the order of their keys."""
        return tuple(params.get(name, ...) for name in self.parameters)

    def repaired(self, values: Params, rng: np.random.Generator) -> dict[str, Any]:
        """A configuration with these values where they may stand, and random ones where one is missing."""
        params: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if self.active(parameter, params):
                params[name] = values[name] if name in values and values[name] in parameter else parameter.sample(rng)
        return params

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random configuration (constraints apart: see `allows`)."""
        if self.listed is not None:
            return dict(self.listed[int(rng.integers(len(self.listed)))])
        return self.repaired({}, rng)

    def allows(self, params: Params) -> bool:
        """Whether no known constraint forbids it."""
        return self._allowed(params)

    def mutate(self, params: Params, rng: np.random.Generator) -> dict[str, Any]:
        """The configuration with one parameter moved."""
        name = list(params)[int(rng.integers(len(params)))]
        return self.repaired({**params, name: self.parameters[name].mutate(params[name], rng)}, rng)

    def neighbours(self, params: Params) -> list[dict[str, Any]]:
        """All that differ in one parameter by one step and are allowed; a parameter that appears takes its first value."""
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
        """Every allowed configuration. Raises UserError for a space with a continuous parameter."""
        if math.isinf(self.size):
            raise UserError("a space with a continuous parameter cannot be enumerated; give `values` or a `step`")
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
        """Names the space: a saved search goes on only in the same one."""
        import hashlib

        text = repr([sorted(map(repr, self._members or ()))] * (self._members is not None) + [(p.name, p.values, p.low, p.high, p.log, p.ordered, p.when) for p in self.parameters.values()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
