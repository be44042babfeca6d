"""Read sizes from the facts of a config, by every name that published configs have for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.memory.config_classes import KV_HEADS

LARGEST = 2**40
"""Largest size."""

class NotModelled(Exception):
    """A fact is unknown or has no single value, so the memory is not predicted. The message is the reason."""


@dataclass(frozen=True)
class AttentionSizes:
    """The sizes that determine the KV cache."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int


def attention_sizes(facts: Mapping[str, Any], name: str) -> AttentionSizes:
    """Return the sizes of one decoder. Raise `NotModelled` if a size is missing and cannot be derived as vLLM derives it."""
    layers = read_size(facts, name, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    hidden = read_size(facts, name, "hidden_size", "n_embd", "d_model", "dim")
    if layers is None or hidden is None:
        missing = "num_hidden_layers" if layers is None else "hidden_size"
        raise NotModelled(f"its config has no {missing}, and its class gives none")
    heads = read_size(facts, name, "num_attention_heads", "n_head", "n_heads")
    head_dim = read_size(facts, name, "head_dim", "attention_head_dim", "hidden_size_per_head") or (hidden // heads if heads else None)
    kv_heads = _kv_heads(facts, name, heads)
    if not head_dim or kv_heads is None:
        raise NotModelled("its config names neither num_attention_heads nor num_key_value_heads and head_dim")
    return AttentionSizes(layers, hidden, heads or max(kv_heads, round(hidden / head_dim)), kv_heads, head_dim)


def _kv_heads(facts: Mapping[str, Any], name: str, heads: int | None) -> int | None:
    if facts.get("multi_query") and not facts.get("new_decoder_architecture"):
        return 1
    attention = facts.get("attn_config")
    if isinstance(attention, Mapping) and (found := read_size(attention, name, "kv_n_heads")) is not None:
        return found
    if facts.get("multi_query_attention") is False:
        return heads
    return read_size(facts, name, *KV_HEADS) or heads


def read_size(facts: Mapping[str, Any], name: str, *keys: str) -> int | None:
    """Return the first of these facts as a whole number, or None if none is there or it is 0 (which means the same).

    Raises:
        NotModelled: the layers have different values.
        UserError: not a valid number.
    """
    for key in keys:
        value = facts.get(key)
        if isinstance(value, list) and value:
            if any(item != value[0] for item in value) or isinstance(value[0], (list, Mapping)):
                raise NotModelled(f"{key} differs layer by layer")
            value = value[0]
        if value is None or value == 0 or value == []:
            continue
        if isinstance(value, Mapping):
            raise NotModelled(f"{key} is not a single number")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST or value != int(value):
            raise UserError(f"model {name}: {key}={shown(value)}: not a whole number above 0. Correct the model's config.json.")
        return int(value)
    return None


def contexts(facts: Mapping[str, Any], name: str) -> tuple[int | None, int | None]:
    """Return the longest context that vLLM serves, and its default (`_get_and_verify_max_len`).

    These ways of scaling the rotary embedding keep the config's number. LongRoPE is served unscaled unless a flag asks for more.
    """
    context = read_size(facts, name, "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "model_max_length")
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    original = read_size(facts, name, "original_max_position_embeddings") or read_size(rope, name, "original_max_position_embeddings")
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    if context is None:
        return None, None
    if kind in ("linear", "dynamic") and "gemma3" not in str(facts.get("model_type", "")):
        context = int(context * float(rope.get("factor") or 1.0))
    return context, min(original or context, context) if kind in ("longrope", "su") else context


_MROPE = ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl", "qwen3_omni", "glm4v", "qwen3_asr")
"""Types of text models whose positions have three parts, where the config leaves the sections to the class."""


def has_mrope(facts: Mapping[str, Any]) -> bool:
    """Return True for multimodal rotary embeddings (`MRotaryEmbedding`: its table has four times the positions)."""
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    return bool(isinstance(rope, Mapping) and rope.get("mrope_section")) or str(facts.get("model_type") or "").startswith(_MROPE)


def shown(value: Any) -> str:
    """Return the value as text on one line."""
    return " ".join(str(value).split())[:80]
