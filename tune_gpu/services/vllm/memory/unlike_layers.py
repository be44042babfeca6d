"""Models whose attention layers have caches of different shapes, or use the cache of another layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tune_gpu.services.vllm.memory.cache_layers import AttentionLayers
from tune_gpu.services.vllm.memory.config_sizes import AttentionSizes, NotModelled, read_size

_GEMMA4_FULL_HEAD = 512
"""Head size of Gemma 4's layers with full attention, if the config has none (transformers' default)."""


def unlike_layers(facts: Mapping[str, Any], sizes: AttentionSizes, window: int | None, name: str) -> tuple[AttentionLayers, ...]:
    """Return the layers with a cache by its shape, or nothing if all layers have the same (but for their window)."""
    if facts.get("block_configs"):
        return _by_block(facts["block_configs"], sizes)
    kind = str(facts.get("model_type", ""))
    shared = read_size(facts, name, "num_kv_shared_layers") or 0
    if not kind.startswith(("gemma3n", "gemma4")):
        return ()
    types = facts.get("layer_types")
    if not isinstance(types, list) or len(types) != sizes.layers or shared >= sizes.layers or window is None:
        raise NotModelled("its config does not say which of its layers have which attention")
    owners = types[: sizes.layers - shared]  # the last layers read the cache of earlier ones
    sliding = sum("sliding" in str(each) for each in owners)
    full = AttentionLayers(len(owners) - sliding, sizes.kv_heads, sizes.head_dim)
    if kind.startswith("gemma4"):
        heads = read_size(facts, name, "num_global_key_value_heads") if facts.get("attention_k_eq_v") else None
        full = AttentionLayers(full.count, heads or sizes.kv_heads, read_size(facts, name, "global_head_dim") or _GEMMA4_FULL_HEAD)
    return tuple(each for each in (full, AttentionLayers(sliding, sizes.kv_heads, sizes.head_dim, window)) if each.count)


def _by_block(blocks: Any, sizes: AttentionSizes) -> tuple[AttentionLayers, ...]:
    """Return the layers of a Nemotron NAS model (`DeciLMForCausalLM`): each block has its own number of heads, or no attention."""
    counts: Counter[int] = Counter()
    for block in blocks if isinstance(blocks, list) and len(blocks) == sizes.layers else [None]:
        attention = block.get("attention") if isinstance(block, Mapping) else None
        if not isinstance(attention, Mapping):
            raise NotModelled("its block_configs do not say the attention of each layer")
        group = attention.get("n_heads_in_group")
        if attention.get("no_op") or attention.get("replace_with_linear"):
            continue
        if not isinstance(group, int) or group < 1:
            raise NotModelled("its block_configs do not say the heads of each layer")
        counts[max(1, sizes.heads // group)] += 1
    return tuple(AttentionLayers(count, heads, sizes.head_dim) for heads, count in sorted(counts.items()))
