"""Models that return embeddings or scores: which they are, and how their memory differs from that of a model that writes text.

A decoder that is converted has no output layer (`models/adapters.py`, `_create_pooling_model_cls`) and no sampler; its cache is the same. An
encoder has no KV cache at all, so vLLM runs no profiling pass for it (`EngineCore._initialize_kv_caches`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tune_gpu.services.vllm.memory.architecture import ModelArchitecture

_ARCHITECTURES = re.compile(r"\w*(?:Embedding\w*|RewardModel|ForSequenceClassification|ForTokenClassification|BidirectionalModel|(?<!Omni)Model)")
"""Classes that the registry lists as embedding, reward and classification models. `Qwen3Model` is one, `Qwen3ForCausalLM` is not."""


def as_served(model: ModelArchitecture, extra: Mapping[str, Any]) -> ModelArchitecture:
    """Return the model as flags and its own class make vLLM serve it."""
    if model.pooling or not (_is_asked_for(extra) or (_runner(extra) != "generate" and _is_own_class(model))):
        return model
    output_layer = 0.0 if model.tied else float(model.vocab * model.hidden)
    return replace(
        model, pooling=True, tied=True, params=max(model.params - output_layer, 1.0),
        weights_bytes=None if model.weights_bytes is None else max(model.weights_bytes - output_layer * model.dtype_bytes, 1.0),
    )  # fmt: skip


def _is_own_class(model: ModelArchitecture) -> bool:
    return any(_ARCHITECTURES.fullmatch(name) for name in model.architectures)


def _is_asked_for(extra: Mapping[str, Any]) -> bool:
    """Return True if `runner`, `convert` or the older `task` ask for pooling."""
    flags = {str(name).replace("-", "_"): str(value) for name, value in extra.items() if value is not None}
    return (
        _runner(extra) == "pooling" or flags.get("convert") in ("embed", "classify", "reward")
        or flags.get("task") in ("embed", "embedding", "classify", "score", "reward", "encode", "token_embed", "token_classify")
    )  # fmt: skip


def _runner(extra: Mapping[str, Any]) -> str:
    return str(extra.get("runner") or "auto")
