"""Determine a model's kind of attention, which decides the shape of its cache. Kinds that are not modelled are recognised and refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_STATE_SPACE_TYPES = re.compile(
    r"mamba|jamba|bamba|zamba|rwkv|falcon_?h1|nemotron_?h|granitemoehybrid|plamo2|lfm2|minimax(?!_m2)|qwen3_next|qwen3_5|kimi_linear|recurrent|retnet|olmo_hybrid|zaya"
)
_STATE_SPACE_KEYS = ("mamba_d_state", "ssm_cfg", "hybrid_override_pattern", "linear_num_value_heads", "attn_layer_period", "full_attention_interval",
                     "linear_attn_config", "mamba_expand", "ssm_state_size")
_OTHER_STATES = re.compile(r"rwkv|plamo2|minimax(?!_m)|bailing|recurrent|retnet|zaya|^mamba2?$|falcon_mamba|qwen4|glm5")
"""Types of which the size of the states is not modelled, or that have no attention at all."""
_UNLIKE_TYPES = ("longcat_flash", "hrm_text")
_UNLIKE_KEYS = ("per_layer_config", "num_query_heads", "global_head_dim", "num_global_key_value_heads", "swa_num_key_value_heads",
                "swa_head_dim", "num_sliding_attention_heads", "num_attention_heads_per_layer", "num_kv_shared_layers", "attention_other_setting", "use_cla")
"""Keys of configs in which layers have heads of their own, or use the cache of another layer. Gemma 3n and 4 are modelled (`unlike_layers`)."""
_LATENT_TYPES = re.compile(r"axk1|kimi_linear|deepseek_v[23]|deepseek_mtp|glm4_moe_lite|kimi_k2|pangu_ultra_moe")
"""Types for which vLLM keeps one latent vector per token (`is_deepseek_mla`), except those that are refused anyway."""
_ENCODER_DECODER_TYPES = ("whisper", "bart", "t5", "mbart", "florence")
RECURRENT = "a hybrid of attention and recurrent (state-space or linear-attention) layers: the size of its states is not modelled"
CHUNKED = "chunked local attention: its cache is not modelled"
SPARSE = (
    "sparse attention with an indexer: the bytes of a token in its caches depend on kernel and version (DeepSeek V3.2: 1152, 656 or 576 "
    "a layer, and 132 of the indexer): not modelled"
)
UNLIKE_LAYERS = "layers that share or differ in the shape of their KV cache: not modelled"
ENCODER_DECODER = "an encoder-decoder model: its cross-attention cache is not modelled"
_NAMES = (  # where only a name identifies the family (a config.json has `model_type`)
    (r"qwen3-?next|qwen3\.[5-9]|jamba|mamba|bamba|nemotron-?(h|nano-(\d+b-)?v2|3)\b|granite-?4.*-h-|falcon-?h1|lfm2|minimax-?(text|m1)|kimi-linear|rwkv|linear-2",
     RECURRENT),
    (r"gemma-?3n|gemma-?4(?!b)", UNLIKE_LAYERS), (r"llama-?4(?!\d)", CHUNKED), (r"deepseek-?v(3\.[2-9]|[4-9])|glm-?5", SPARSE),
    (r"whisper|\bbart\b|\bt5\b|florence", ENCODER_DECODER),
)
_RATIO = re.compile(r"(?:sliding|swa|local)[^\d:]*(\d+)\s*(?:local|sliding|swa)?\s*:\s*(\d+)", re.IGNORECASE)


def latent_size(facts: Mapping[str, Any]) -> int | None:
    """Return the size of a token's latent vector (multi-head latent attention), or None for any other attention."""
    if facts.get("kv_lora_rank"):
        return int(facts["kv_lora_rank"]) + int(facts.get("qk_rope_head_dim") or 64)
    if re.search(r"\bMLA\b|latent", str(facts.get("attention", "")), re.IGNORECASE):
        return int(facts.get("head_dim") or 576)
    return None


def sliding_layers(facts: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """Return the window, and how many layers have it. A table may have `sliding 5:1`. Raise ValueError if the window is not a number of
    tokens."""
    window = facts.get("sliding_window") or None
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ValueError(f"sliding_window={str(window)[:40]}: not a whole number above 0")
    ratio = _RATIO.search(str(facts.get("attention", "")))
    if ratio:
        part, rest = int(ratio[1]), max(1, int(ratio[2]))
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


def not_modelled(outer: Mapping[str, Any], facts: Mapping[str, Any], name: str = "") -> str | None:
    """Return why the cache of this model is not modelled, or None if it is.

    Args:
        outer: its whole config.
        facts: those of its text part.
        name: identifies the family if there is no `model_type`.
    """
    kind, attention = str(facts.get("model_type", "")).lower(), str(facts.get("attention", "")).lower()
    if outer.get("is_encoder_decoder") or kind.startswith(_ENCODER_DECODER_TYPES) or re.search(r"encoder.?decoder|encoder.?only", attention):
        return ENCODER_DECODER
    if "cross" in attention or facts.get("cross_attention_layers") or facts.get("cross_layer_interval"):
        return "cross-attention layers: their cache is not modelled"
    if is_recurrent(facts) and (_OTHER_STATES.search(kind) or not (kind or facts.get("layer_types"))):
        return RECURRENT
    if "chunked" in attention or ("local" in attention and not _RATIO.search(attention)):
        return CHUNKED
    if facts.get("index_topk") or facts.get("sparse_attention_config") or kind in ("deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa") or re.search(r"sparse|indexer|\b[dn]sa\b", attention) or kind.startswith("minimax_m3"):
        return SPARSE
    if kind.startswith(_UNLIKE_TYPES) or (not kind.startswith(("gemma3n", "gemma4")) and any(facts.get(key) for key in _UNLIKE_KEYS)):
        return UNLIKE_LAYERS
    if kind and facts.get("kv_lora_rank") and not _LATENT_TYPES.fullmatch(kind):
        return "latent attention of a type for which vLLM is not known to keep a latent cache: not modelled"
    if not facts.get("kv_lora_rank") and facts.get("v_head_dim") and facts.get("head_dim") and facts["v_head_dim"] != facts["head_dim"]:
        return "keys and values of different sizes: their cache is not modelled"
    if re.search(r"sliding|swa\b", attention) and not _RATIO.search(attention) and not facts.get("sliding_window"):
        return "sliding-window layers, whose number is not given"
    if not kind:
        return refused_family(name)
    return None


def refused_family(name: str) -> str | None:
    """Return why a model of this name is not modelled if nothing but its name is known, or None for every other name."""
    return next((why for pattern, why in _NAMES if re.search(pattern, name.lower())), None)


def is_recurrent(facts: Mapping[str, Any]) -> bool:
    """Return True if some layers keep a state instead of keys and values."""
    kind, attention = str(facts.get("model_type", "")).lower(), str(facts.get("attention", "")).lower()
    if any(re.search(r"linear|mamba|recurrent|conv", str(item)) for item in facts.get("layer_types") or []):
        return True
    if _STATE_SPACE_TYPES.search(kind) or any(facts.get(key) for key in _STATE_SPACE_KEYS):
        return True
    words = r"linear|mamba|ssm|state.space|delta|recurrent|\bgdn\b|\bkda\b|lightning|rwkv|\bconv|short.?conv"
    return re.search(words, attention) is not None or ("hybrid" in attention and not re.search(r"sliding|swa", attention))
