"""How many cards an engine takes, by its parallel sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.deployment import deployment
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check

_MULTIPLIES = ("pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
"""Flags of vLLM that take as many times the cards (`ParallelConfig.world_size_across_dp`); decode context parallelism shares those of the others."""


def cards_of(config: ExperimentConfig, params: Mapping[str, Any]) -> int:
    """Cards that the candidate's engine spans: the product of its parallel sizes. Raises UserError for a size that is none."""
    return math.prod(parallel_sizes(config, params).values())


def fewest_cards(config: ExperimentConfig) -> int:
    """Of any candidate's engine."""
    return min(cards_of(config, params) for params in divisions(config))


def most_cards(config: ExperimentConfig) -> int:
    """Of any candidate's engine."""
    return max(cards_of(config, params) for params in divisions(config))


def parallel_sizes(config: ExperimentConfig, params: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes whose product is the number of cards, by setting. Raise UserError for one that is not a whole number from 1."""
    vllm = deployment(config, params).vllm
    extra = {name.replace("-", "_"): value for name, value in vllm.extra_args.items()}
    given = {f"extra_args.{name}": extra[name] for name in _MULTIPLIES if name in extra}
    sizes = {"tensor_parallel_size": vllm.tensor_parallel_size}
    for name, value in given.items():
        try:
            sizes[name] = 1 if value is None else int(value)
        except (TypeError, ValueError):
            raise UserError(f"vllm.{name}={value}: allowed is a whole number") from None
        if sizes[name] < 1:
            raise UserError(f"vllm.{name}={value}: allowed is 1 or more")
    return sizes


def divisions(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Every combination of the parameters that decide on how many cards an engine is: its sizes multiply, and two may vary at once."""
    flags = {"vllm.tensor_parallel_size", *(f"vllm.extra_args.{name}" for name in _MULTIPLIES)}
    deciding = {name for name, spec in config.parameters.items() if spec.target.replace("-", "_") in flags}
    while parents := {parent for name in deciding for parent in config.parameters[name].when} - deciding:
        deciding |= parents
    found: list[dict[str, Any]] = [{}]
    if not deciding:
        return found
    space = SearchSpace.from_specs(config.parameters)
    for name, parameter in space.parameters.items():
        if name in deciding:
            asked = [value for spec in config.parameters.values() for value in spec.when.get(name, [])]  # of a range more than its ends may matter
            values = [*values_to_check(parameter), *asked]
            found = [more for params in found for more in ([{**params, name: v} for v in values] if space.active(parameter, params) else [params])]
    return found
