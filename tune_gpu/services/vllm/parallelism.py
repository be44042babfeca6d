"""Count the cards of an engine, by its parallel sizes."""

from __future__ import annotations

import math
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, VllmSettings
from tune_gpu.config.targets import Target, settings_with
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check

_MULTIPLIES = ("pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
"""Flags of vLLM that multiply the cards (`ParallelConfig.world_size_across_dp`). Decode context parallelism uses the cards of the
others."""


def cards_of(vllm: VllmSettings) -> int:
    """Return how many cards an engine spans: the product of its parallel sizes. Raise UserError for one that is not a whole number from 1."""
    return math.prod(parallel_sizes(vllm).values())


def fewest_cards(config: ExperimentConfig) -> int:
    """Return the least number of cards that the engine of a candidate spans."""
    return min(cards_of(settings_with(config, params).vllm) for params in divisions(config))


def most_cards(config: ExperimentConfig) -> int:
    """Return the greatest number of cards that the engine of a candidate spans."""
    return max(cards_of(settings_with(config, params).vllm) for params in divisions(config))


def parallel_sizes(vllm: VllmSettings) -> dict[str, int]:
    """Return the sizes whose product is the number of cards, by setting. Raise UserError for one that is not a whole number from 1."""
    extra = {name.replace("-", "_"): value for name, value in vllm.extra_args.items()}
    given = {f"extra_args.{name}": extra[name] for name in _MULTIPLIES if name in extra}
    sizes = {"tensor_parallel_size": vllm.tensor_parallel_size}
    for name, value in given.items():
        try:
            sizes[name] = 1 if value is None else int(value)
        except (TypeError, ValueError):
            raise UserError(f"vllm.{name}={value}: not a whole number. Set 1 or more.") from None
        if sizes[name] < 1:
            raise UserError(f"vllm.{name}={value}: below 1. Set 1 or more.")
    return sizes


def _decides(target: Target) -> bool:
    if target.entry is None:
        return target == Target("vllm", "tensor_parallel_size")
    return target.setting == "extra_args" and target.entry.replace("-", "_") in _MULTIPLIES


def divisions(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return every combination of the parameters that decide the number of cards. Sizes multiply, and two may vary at once."""
    deciding = {name for name, spec in config.parameters.items() if _decides(Target.parse(spec.target))}
    while parents := {parent for name in deciding for parent in config.parameters[name].when} - deciding:
        deciding |= parents
    found: list[dict[str, Any]] = [{}]
    if not deciding:
        return found
    space = SearchSpace.from_specs(config.parameters)
    for name, parameter in space.parameters.items():
        if name in deciding:
            # Within a range more than its ends may matter.
            asked = [value for spec in config.parameters.values() for value in spec.when.get(name, [])]
            values = [*values_to_check(parameter), *asked]
            found = [more for params in found for more in ([{**params, name: v} for v in values] if space.active(parameter, params) else [params])]
    return found
