"""Parse the facts that a running engine reports. A missing or malformed fact is None."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from tune_gpu.services.exposition import samples


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """Facts that a running engine reports."""

    start_s: float
    kv_cache_tokens: int | None
    kv_cache_blocks: int | None
    block_size: int | None
    max_concurrency: float | None
    """Sequences of `max_model_len` that fit the KV cache at the same time."""
    version: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as the artifacts have them."""
        return dataclasses.asdict(self)


def read_engine_info(metrics: str, version: str, *, start_s: float, max_model_len: int | str | None) -> EngineInfo:
    """Return the facts in the texts of `/metrics` (Prometheus' exposition format) and `/version` (JSON). Never raise for their content."""
    labels = _cache_config(metrics)
    blocks, block_size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    tokens = _number(labels.get("kv_cache_size_tokens"))
    if tokens is None and blocks is not None and block_size is not None:
        tokens = blocks * block_size
    concurrency = _number(labels.get("kv_cache_max_concurrency"))
    if concurrency is None and tokens is not None and isinstance(max_model_len, int) and max_model_len:
        concurrency = tokens / max_model_len
    return EngineInfo(
        start_s,
        None if tokens is None else int(tokens),
        None if blocks is None else int(blocks),
        None if block_size is None else int(block_size),
        concurrency,
        _version(version),
    )


def _cache_config(metrics: str) -> dict[str, str]:
    return next((labels for labels, _ in samples(metrics, "vllm:cache_config_info")), {})


def _version(text: str) -> str | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    version = answer.get("version") if isinstance(answer, dict) else None
    return version if isinstance(version, str) else None


def _number(text: str | None) -> float | None:
    """Return a finite number from 0, or None for anything else."""
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
