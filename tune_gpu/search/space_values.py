"""The values of a parameter that a check needs to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tune_gpu.search.parameter import Parameter
from tune_gpu.search.steps import SteppedRange


def values_to_check(parameter: Parameter) -> Iterator[Any]:
    """Return all listed values, but only the ends of a range, because the values between are valid if the ends are."""
    if parameter.values is None:
        yield from (parameter.low, parameter.high)
    elif isinstance(parameter.values, SteppedRange):
        yield from (parameter.values[0], parameter.values[-1])
    else:
        yield from parameter.values
