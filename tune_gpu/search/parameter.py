"""One knob of a search space: its values or its range, and random moves in it."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.config.targets import Target
from tune_gpu.search.steps import MANY, SteppedRange, digits
from tune_gpu.search.values import distinct, index_of, index_of_nearest, indices_by_identity, to_builtin

_STEP = 0.1
"""Standard deviation of a mutation in a range, as a share of the range."""


@dataclass(frozen=True)
class Parameter:
    """One knob: values (ordered or not), or a continuous range."""

    name: str
    target: Target
    values: tuple[Any, ...] | SteppedRange | None
    """None for a continuous range; `SteppedRange` for a long range in steps, and for any log range in steps."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    ordered: bool = True
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """The parameter exists only if each of these parameters has one of these values."""

    @classmethod
    def from_spec(cls, name: str, spec: ParameterSpec) -> Parameter:
        """Return the parameter for a spec. Raise UserError if it is neither a valid set of values nor a valid range."""
        check(spec, f"parameters.{name}.")
        target, when = Target.parse(spec.target), tuple((parent, tuple(values)) for parent, values in spec.when.items())
        if spec.values is not None:
            values = tuple(map(to_builtin, spec.values))
            if len(distinct(values)) != len(values):
                raise UserError(f"parameters.{name}.values={list(values)}: a value appears twice. Remove one.")
            return cls(name, target, values, ordered=spec.kind == "ordinal", when=when)
        return cls._range(name, target, spec, when)

    @classmethod
    def _range(cls, name: str, target: Target, spec: ParameterSpec, when: tuple[tuple[str, tuple[Any, ...]], ...]) -> Parameter:
        low, high = spec.low, spec.high
        assert low is not None, "checked"
        assert high is not None, "checked"
        values = _whole_steps(name, low, high, spec) if spec.integer else _steps(low, high, spec)
        if values is None:
            return cls(name, target, None, float(low), float(high), spec.log, when=when)
        return cls(name, target, values, log=isinstance(values, SteppedRange) and spec.log, when=when)

    @cached_property
    def _indices(self) -> dict[tuple[type, Any], int]:
        return indices_by_identity(self.values or ())

    def index_of(self, value: object) -> int | None:
        """Return the index of a value: by identity, else by equality (1.0 matches 1, never True). None if it is absent."""
        if isinstance(self.values, SteppedRange):
            return self.values.index_of(value)
        return index_of(value, self.values or (), self._indices)

    def canonical(self, value: Any) -> Any:
        """Return the parameter's own value for a given one: 0.3 for 0.1 * 3. Any other value is returned unchanged."""
        if self.values is None:
            return value
        found = self.index_of(value)
        if found is None and isinstance(value, float):
            found = self.values.index_of_nearest(value) if isinstance(self.values, SteppedRange) else index_of_nearest(value, self.values)
        return value if found is None else self.values[found]

    def among(self, value: Any, values: Sequence[Any]) -> bool:
        """Return whether a value of this parameter is one of the given values, which are also its own."""
        return value in values if self.values is None else self.index_of(value) in {self.index_of(other) for other in values}

    def __contains__(self, value: object) -> bool:
        if self.values is not None:
            return self.index_of(value) is not None
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def allowed(self) -> str:
        """Return the allowed values in words, for an error message."""
        if isinstance(self.values, SteppedRange):
            return str(self.values)
        return ", ".join(map(str, self.values)) if self.values is not None else f"{self.low:g} to {self.high:g}"

    def sample(self, rng: np.random.Generator) -> Any:
        """Return a random value, uniform (log-uniform for a log range)."""
        if isinstance(self.values, SteppedRange):
            return self.values[int(self.values.drawn(rng.random(1))[0])]
        if self.values is not None:
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            return float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def mutate(self, value: Any, rng: np.random.Generator) -> Any:
        """Return another value near this one: the next in order, any other without an order, or a normal step (a tenth of the range) in a
        range."""
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
        """Return the values next to this one, all others for a categorical parameter, or an empty list for a range, which has too many.

        Raises:
            ValueError: the value is not one of the parameter's.
        """
        if self.values is None:
            return []
        found = self.index_of(value)
        if found is None:
            raise ValueError(f"{self.name}={value}: not allowed. Use {self.allowed()}.")
        others = (found - 1, found + 1) if self.ordered else range(len(self.values))
        return [self.values[i] for i in others if 0 <= i < len(self.values) and i != found]

    def key(self, value: Any) -> Hashable:
        """Return a key that is equal for equal values: the index of the value, or its `repr` if it is not one of the parameter's values."""
        if self.values is None:
            return value
        found = self.index_of(value)
        return repr(value) if found is None else found


def _whole_steps(name: str, low: float, high: float, spec: ParameterSpec) -> tuple[Any, ...] | SteppedRange:
    step = 1 if spec.step is None else int(spec.step)
    first, last = math.ceil(low), math.floor(high)
    if first > last or last - first >= sys.maxsize:
        raise UserError(f"parameters.{name}: low={low}, high={high}: contains no whole number, or too many. Set a range with 1 to {sys.maxsize} of them.")
    numbers = range(first, last + 1, step)
    if len(numbers) > MANY or (spec.log and len(numbers) > 1):
        return SteppedRange(first, step, len(numbers), spec.log)
    return tuple(numbers)


def _steps(low: float, high: float, spec: ParameterSpec) -> tuple[Any, ...] | SteppedRange | None:
    """Return the values of a range in steps, or None without steps or if they are finer than floating-point numbers."""
    if spec.step is None:
        return (float(low),) if low == high else None
    if low < high and spec.step < math.ulp(max(abs(low), abs(high))):
        return None
    n = math.floor((high - low) / spec.step + 1e-9) + 1
    if n > MANY or (spec.log and n > 1):
        return SteppedRange(low, spec.step, n, spec.log)
    return tuple(round(low + index * spec.step, digits(spec.step)) for index in range(n))
