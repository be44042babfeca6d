"""Count the cards of an engine, by its parallel sizes."""

from __future__ import annotations

import math

from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.settings import VllmSettings

_MULTIPLIES = ("pipeline_parallel_size", "prefill_context_parallel_size", "data_parallel_size")
"""Flags of vLLM that multiply the cards (`ParallelConfig.world_size_across_dp`). Decode context parallelism uses the cards of the
others."""
CARD_SETTINGS = frozenset({"tensor_parallel_size", *_MULTIPLIES})


def cards_of(vllm: VllmSettings) -> int:
    """Return how many cards an engine spans: the product of its parallel sizes. Raise UserError for one that is not a whole number from 1."""
    return math.prod(parallel_sizes(vllm).values())


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
