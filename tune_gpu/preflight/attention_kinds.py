"""Which kind of attention a model has: what decides the shape of its cache, and what is recognised and refused rather than mispredicted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_STATE_SPACE_TYPES = re.compile(
    r"mamba|jamba|bamba|zamba|rwkv|falcon_?h1|nemotron_?h|granitemoehybrid|plamo2|lfm2|minimax|qwen3_next|qwen3_5|kimi_linear|recurrent|retnet|olmo_hybrid"
)
_STATE_SPACE_KEYS = ("mamba_d_state", "ssm_cfg", "hybrid_override_pattern", "linear_num_value_heads", "attn_layer_period", "full_attention_interval",
                     "linear_attn_config", "mamba_expand", "ssm_state_size")
_ENCODER_DECODER_TYPES = ("whisper", "bart", "t5", "mbart", "florence")

def latent_size(facts: Mapping[str, Any]) -> int | None:
    """Numbers in a token's latent vector (multi-head latent attention); null for any other attention."""
    if facts.get("kv_lora_rank"):
        return int(facts["kv_lora_rank"]) + int(facts.get("qk_rope_head_dim") or 64)
    if re.search(r"\bMLA\b|latent", str(facts.get("attention", "")), re.IGNORECASE):
        return int(facts.get("head_dim") or 576)
    return None


def sliding_layers(facts: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """The window and how many layers have it. A table may say `sliding 5:1`."""
    window = facts.get("sliding_window")
    ratio = re.search(r"sliding\D*(\d+)\s*:\s*(\d+)", str(facts.get("attention", "")))
    if ratio:
        part, rest = int(ratio[1]), int(ratio[2])
        return window or 4096, layers - math.ceil(layers * rest / (part + rest)) if layers % (part + rest) == 0 else layers - layers // (part + rest)
    kinds = facts.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return (window, sum("sliding" in str(kind) for kind in kinds)) if window else (None, 0)
    if not window or facts.get("use_sliding_window") is False:
        return None, 0
    pattern = facts.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        return window, sum(pattern[index % len(pattern)] == "L" for index in range(layers))
    if isinstance(pattern, int) and pattern > 1:
        return window, layers - layers // pattern
    if str(facts.get("model_type", "")).startswith("gemma2"):
        return window, layers - layers // 2
    return window, layers


def not_modelled(outer: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Why the cache of this model is not modelled, from its whole config (`outer`) and that of its text part; null if it is."""
    kind, attention = str(facts.get("model_type", "")).lower(), str(facts.get("attention", "")).lower()
    if outer.get("is_encoder_decoder") or any(kind.startswith(name) for name in _ENCODER_DECODER_TYPES):
        return "an encoder-decoder model: its cross-attention cache is not modelled"
    if "cross" in attention or facts.get("cross_attention_layers"):
        return "cross-attention layers: their cache is not modelled"
    linear = [str(item) for item in facts.get("layer_types") or [] if re.search(r"linear|mamba|recurrent|conv", str(item))]
    states = linear or _STATE_SPACE_TYPES.search(kind) or any(facts.get(key) for key in _STATE_SPACE_KEYS)
    if states or re.search(r"linear|mamba|ssm|state.space|delta|recurrent", attention) or ("hybrid" in attention and "sliding" not in attention):
        return "a hybrid of attention and recurrent (state-space or linear-attention) layers: the size of its states is not modelled"
    if facts.get("attention_chunk_size") or "chunked" in attention or "local" in attention:
        return "chunked local attention: its cache is not modelled"
    if str(kind) in ("deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa") or "sparse" in attention:
        return "sparse attention with an indexer cache: not modelled"
    if kind.startswith(("gemma3n", "gemma4")):
        return "layers that share or differ in the shape of their KV cache: not modelled"
    return None
