"""The values of a parameter that stand for all of them in a check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tune_gpu.search.parameter import Parameter
from tune_gpu.search.steps import SteppedRange


def values_to_check(parameter: Parameter) -> Iterator[Any]:
    """Return every listed value, and only the ends of a range: what lies between is valid if they are."""
    if parameter.values is None:
        yield from (parameter.low, parameter.high)
    elif isinstance(parameter.values, SteppedRange):
        yield from (parameter.values[0], parameter.values[-1])
    else:
        yield from parameter.values
