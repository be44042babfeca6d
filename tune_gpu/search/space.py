"""What may vary: parameters, their bounds and order, and which configurations exist."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.steps import MANY, SteppedRange, digits
from tune_gpu.search.values import PLAIN, described, distinct, near, place, places, plain

Params = Mapping[str, Any]
_STEP = 0.1
"""Standard deviation of a mutation in a range, as a share of it."""


@dataclass(frozen=True)
class Parameter:
    """One knob: values (ordered or not), or a continuous range."""

    name: str
    target: str
    values: tuple[Any, ...] | SteppedRange | None
    """Null for a continuous range; `SteppedRange` for a long range in steps, and for any in the logarithm."""
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
        if spec.values is not None and any(given is not None for given in (spec.low, spec.high, spec.step)):
            raise UserError(f"parameters.{name}: give `values`, or a range (`low`, `high`, `step`), not both")
        if spec.values is not None:
            values = tuple(map(plain, spec.values))
            if not values:
                raise UserError(f"parameters.{name}.values is empty: give at least one value")
            if len(distinct(values)) != len(values):
                raise UserError(f"parameters.{name}.values={list(values)}: a value stands there twice")
            return cls(name, spec.target, values, ordered=spec.kind == "ordinal", when=when)
        return cls._range(name, spec, when)

    @classmethod
    def _range(cls, name: str, spec: ParameterSpec, when: tuple[tuple[str, tuple[Any, ...]], ...]) -> Parameter:
        low, high = spec.low, spec.high
        if low is None or high is None:
            raise UserError(f"parameters.{name}: give `values`, or both `low` and `high`")
        if not -math.inf < low <= high < math.inf or (spec.log and low <= 0):
            raise UserError(f"parameters.{name}: low={low}, high={high}: allowed is low <= high, both finite{', low > 0 for log' if spec.log else ''}")
        if spec.step is not None and not spec.step > 0:
            raise UserError(f"parameters.{name}.step={spec.step}: allowed is above 0")
        values = _whole_steps(name, low, high, spec) if spec.integer else _steps(low, high, spec)
        if values is None:
            return cls(name, spec.target, None, float(low), float(high), spec.log, when=when)
        return cls(name, spec.target, values, log=isinstance(values, SteppedRange) and spec.log, when=when)

    @cached_property
    def _places(self) -> dict[tuple[type, Any], int]:
        return places(self.values or ())

    def place(self, value: object) -> int | None:
        """Return where a value stands among the values: itself, else what is equal to it (1.0 for 1, but never for True); null if nothing is."""
        if isinstance(self.values, SteppedRange):
            return self.values.place(value)
        return place(value, self.values or (), self._places)

    def own(self, value: Any) -> Any:
        """The parameter's own value for one that is given: 0.3 for 0.1 * 3. What it has no value for is left as it is."""
        if self.values is None:
            return value
        found = self.place(value)
        if found is None and isinstance(value, float):
            found = self.values.near(value) if isinstance(self.values, SteppedRange) else near(value, self.values)
        return value if found is None else self.values[found]

    def among(self, value: Any, values: Sequence[Any]) -> bool:
        """Return whether a value of this parameter is one of these, which are its values too."""
        return value in values if self.values is None else self.place(value) in {self.place(other) for other in values}

    def __contains__(self, value: object) -> bool:
        if self.values is not None:
            return self.place(value) is not None
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def allowed(self) -> str:
        """For an error message."""
        if isinstance(self.values, SteppedRange):
            return str(self.values)
        return ", ".join(map(str, self.values)) if self.values is not None else f"{self.low:g} to {self.high:g}"

    def sample(self, rng: np.random.Generator) -> Any:
        """A random value: uniform, in the logarithm for a log range."""
        if isinstance(self.values, SteppedRange):
            return self.values[int(self.values.drawn(rng.random(1))[0])]
        if self.values is not None:
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            return float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def mutate(self, value: Any, rng: np.random.Generator) -> Any:
        """Another value near this one: the next in order, any other if there is no order, a normal step (a tenth of the range) in a range."""
        if isinstance(self.values, SteppedRange):
            return self.values[int(self.values.moved(np.array([float(self.values.index(value))]), rng.normal(0.0, _STEP, 1))[0])]
        beside = self.neighbours(value)
        if beside:
            return beside[int(rng.integers(len(beside)))]
        if self.values is not None:
            return value
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        moved = min(high, max(low, (math.log(value) if self.log else value) + float(rng.normal(0.0, _STEP * (high - low)))))
        return float(np.exp(moved)) if self.log else moved

    def neighbours(self, value: Any) -> list[Any]:
        """The values next to this one; of a categorical parameter all others; of a range none (there are too many)."""
        if self.values is None:
            return []
        found = self.place(value)
        if found is None:
            raise ValueError(f"{self.name}={value}: allowed: {self.allowed()}")
        others = (found - 1, found + 1) if self.ordered else range(len(self.values))
        return [self.values[i] for i in others if 0 <= i < len(self.values) and i != found]


def _whole_steps(name: str, low: float, high: float, spec: ParameterSpec) -> tuple[Any, ...] | SteppedRange:
    step = 1 if spec.step is None else int(spec.step)
    if spec.step is not None and step != spec.step:
        raise UserError(f"parameters.{name}.step={spec.step}: allowed is a whole number, as integer is set")
    first, last = math.ceil(low), math.floor(high)
    if first > last or last - first >= sys.maxsize:
        raise UserError(f"parameters.{name}: low={low}, high={high}: allowed are 1 to {sys.maxsize} whole numbers")
    numbers = range(first, last + 1, step)
    if len(numbers) > MANY or (spec.log and len(numbers) > 1):
        return SteppedRange(first, step, len(numbers), spec.log)
    return tuple(numbers)


def _steps(low: float, high: float, spec: ParameterSpec) -> tuple[Any, ...] | SteppedRange | None:
    """Null for what has no steps, or finer ones than its numbers have."""
    if spec.step is None:
        return (float(low),) if low == high else None
    if low < high and spec.step < math.ulp(max(abs(low), abs(high))):
        return None
    n = math.floor((high - low) / spec.step + 1e-9) + 1
    if n > MANY or (spec.log and n > 1):
        return SteppedRange(low, spec.step, n, spec.log)
    return tuple(round(low + index * spec.step, digits(spec.step)) for index in range(n))


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
                if not values:
                    raise UserError(f"parameters.{parameter.name}.when.{parent} is empty: it would exist nowhere; allowed: {known[parent].allowed()}")
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
        return self._count({}, list(self.parameters.values()))

    def _count(self, params: dict[str, Any], rest: list[Parameter]) -> int:
        """Configurations that begin with these values: only the values that a condition names are gone through one by one."""
        if not rest:
            return 1
        parameter, later = rest[0], rest[1:]
        if not self.active(parameter, params):
            return self._count(params, later)
        values = parameter.values or ()
        told_apart = [value for other in later for parent, wanted in other.when if parent == parameter.name for value in wanted]
        named = {found for value in told_apart if (found := parameter.place(value)) is not None}
        total = sum(self._count({**params, parameter.name: values[i]}, later) for i in named)
        others = len(values) - len(named)
        return total + (others * self._count({**params, parameter.name: ...}, later) if others else 0)

    def active(self, parameter: Parameter, params: Params) -> bool:
        """Return whether the parameter exists beside these values of those before it."""
        return all(parent in params and self.parameters[parent].among(params[parent], values) for parent, values in parameter.when)

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
        """The configuration in the space's own values, NumPy's scalars as Python's. Raises UserError as `check`."""
        own = {name: self.parameters[name].own(plain(value)) if name in self.parameters else value for name, value in params.items()}
        self.check(own)
        return own

    def saved(self, params: Params) -> dict[str, Any]:
        """The configuration as JSON values: of what JSON cannot give back as it was, where it stands among the parameter's values."""
        return {name: value if type(value) in PLAIN else {"index": self.parameters[name].place(value)} for name, value in params.items()}

    def loaded(self, saved: Params) -> dict[str, Any]:
        """The configuration that was saved, in the space's own values. Raises UserError as `check`."""
        return self.own({name: self._at(name, value["index"]) if isinstance(value, dict) and set(value) == {"index"} else value
                         for name, value in saved.items()})

    def _at(self, name: str, index: int) -> Any:
        values = self.parameters[name].values if name in self.parameters else None
        if values is None or not 0 <= index < len(values):
            raise UserError(f"{name}: it has no value {index}")
        return values[index]

    def __contains__(self, params: object) -> bool:
        try:
            self.check(params)  # type: ignore[arg-type]
        except (UserError, TypeError):
            return False
        return self._allowed(params)  # type: ignore[arg-type]

    def key(self, params: Params) -> Hashable:
        """Equal for equal configurations, whatever the order of their keys."""
        return tuple(_key(parameter, params[name]) if name in params else ... for name, parameter in self.parameters.items())

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
        """Return whether no known constraint forbids it."""
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

        listed = sorted({repr(tuple(described(params.get(name, ...)) for name in self.parameters)) for params in self.listed or ()})
        parameters = [
            (p.name, p.values if p.values is None or isinstance(p.values, SteppedRange) else tuple(map(described, p.values)), p.low, p.high, p.log, p.ordered,
             tuple((parent, tuple(map(described, values))) for parent, values in p.when))
            for p in self.parameters.values()]
        text = repr([listed] * (self.listed is not None) + parameters)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(parameter: Parameter, value: Any) -> Hashable:
    """Return where a value stands; what is no value of the parameter is known by its `repr`."""
    if parameter.values is None:
        return value
    found = parameter.place(value)
    return repr(value) if found is None else found
