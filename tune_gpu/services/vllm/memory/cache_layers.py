"""The layers of a model by what they keep per sequence: keys and values of every token, of a window, or one state.

State sizes follow `model_executor/layers/mamba/mamba_utils.py` and the `get_mamba_state_shape_from_config` of vLLM's models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.services.vllm.memory.config_sizes import NotModelled, read_size

_STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class AttentionLayers:
    """Layers whose keys and values have the same shape."""

    count: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Tokens that are kept; None for all."""

    def token_values(self, cards: int) -> int:
        """Return the numbers that one layer keeps of a token on one card. A head is never split."""
        return 2 * max(1, self.kv_heads // cards) * self.head_dim


@dataclass(frozen=True)
class StateLayers:
    """Layers that keep one state per sequence: the last inputs of a convolution, and mostly a recurrent matrix."""

    count: int
    conv: int
    """Numbers of the convolution's state over all cards, without those of the groups."""
    recurrent: int
    params: float
    """Number of parameters of one layer."""
    groups: int = 0
    group: int = 0
    """Numbers of the convolution's state for each group. There are at least as many groups as cards if they cannot be divided."""
    recurrent_bytes: int | None = None
    """Bytes of a number in the recurrent state; None for the served width."""

    def page_bytes(self, width: int, cards: int) -> int:
        """Return the bytes of one layer's state on one card."""
        groups = self.groups if self.groups % cards == 0 else max(self.groups, cards)
        return (self.conv + groups * self.group) // cards * width + self.recurrent // cards * (self.recurrent_bytes or width)


@dataclass(frozen=True)
class LayerMix:
    """How many layers of each kind a hybrid model has."""

    attention: int
    states: int
    feed_forward: int
    """Layers with a feed-forward network of their own (all of them, except in models where it is a layer)."""
    experts: int | None = None
    """Those with experts, if the layers name them."""


_ATTENTION = frozenset({"full_attention", "attention", "hybrid", "*", "sliding_attention", "global", "h"})
_STATE = frozenset({"linear_attention", "mamba", "mamba2", "conv", "hybrid", "m", "recurrent", "short_conv", "kda"})
_FEED_FORWARD = frozenset({"mlp", "moe", "-", "e"})


def layer_mix(facts: Mapping[str, Any], layers: int) -> LayerMix:
    """Return the kinds of a hybrid model's layers. Raise NotModelled if its config does not say them."""
    kinds = _named_kinds(facts, layers)
    if kinds is None:
        raise NotModelled("its config does not say which of its layers keep a recurrent state")
    if len(kinds) != layers:
        raise NotModelled(f"its config names the kinds of {len(kinds)} layers, and num_hidden_layers another number")
    known = _ATTENTION | _STATE | _FEED_FORWARD
    if unknown := sorted(set(kinds) - known):
        raise NotModelled(f"its layers are of a kind that is not modelled ({', '.join(unknown)[:60]})")
    if not any(kind in _ATTENTION for kind in kinds):
        raise NotModelled("all of its layers keep a recurrent state: not modelled")
    alone = [kind for kind in kinds if kind in _FEED_FORWARD]
    return LayerMix(
        sum(kind in _ATTENTION for kind in kinds), sum(kind in _STATE for kind in kinds), len(alone) or len(kinds),
        sum(kind in ("moe", "e") for kind in alone) if alone else None,
    )  # fmt: skip


def _named_kinds(facts: Mapping[str, Any], layers: int) -> list[str] | None:
    pattern = facts.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return [kind.lower() for kind in pattern]
    linear = facts.get("linear_attn_config")
    if isinstance(linear, Mapping) and isinstance(linear.get("kda_layers"), list):
        return _placed(layers, {index - 1 for index in linear.get("full_attn_layers") or []})
    for key in ("attn_layer_indices", "full_attn_idxs"):
        if isinstance(facts.get(key), list):
            return _placed(layers, set(facts[key]))
    for key in ("layers_block_type", "layer_types"):
        kinds = facts.get(key)
        if isinstance(kinds, list) and kinds:
            return [str(kind).lower() for kind in kinds]
    interval = facts.get("full_attention_interval")
    if isinstance(interval, int) and interval > 0:
        return _placed(layers, set(range(interval - 1, layers, interval)))
    period = facts.get("attn_layer_period")
    if isinstance(period, int) and period > 0:
        return _placed(layers, set(range(int(facts.get("attn_layer_offset") or 0), layers, period)))
    return None


def _placed(layers: int, attention: set[int]) -> list[str]:
    return ["attention" if index in attention else "mamba" for index in range(layers)]


def state_layers(facts: Mapping[str, Any], hidden: int, count: int, name: str) -> StateLayers:
    """Return the state of one kind of layer by the sizes in its config. Raise NotModelled if they are of no kind that is known."""

    def size(*keys: str, default: int | None = None) -> int:
        found = read_size(facts, name, *keys)
        if found is None and default is None:
            raise NotModelled(f"its config has no {keys[0]}, which the size of its states depends on")
        return int(found if found is not None else default or 0)

    if facts.get("linear_num_value_heads"):
        return _gated_delta_net(facts, size, hidden, count)
    if isinstance(facts.get("linear_attn_config"), Mapping) or facts.get("linear_num_heads"):
        return _kimi_delta(facts, hidden, count, name)
    if facts.get("conv_L_cache"):
        return _short_convolution(size, hidden, count)
    heads = read_size(facts, name, "mamba_n_heads", "mamba_num_heads", "n_mamba_heads")
    if heads:
        return _mamba2(facts, size, heads, hidden, count)
    if facts.get("mamba_d_state") and facts.get("mamba_d_conv"):
        return _mamba1(size, hidden, count)
    raise NotModelled("the size of its recurrent states is not modelled")


def _gated_delta_net(facts: Mapping[str, Any], size: Any, hidden: int, count: int) -> StateLayers:
    """Qwen3-Next, Qwen3.5 and OLMo Hybrid: queries, keys and values go through a convolution, the state is values x keys for each head."""
    value_heads, value_dim = size("linear_num_value_heads"), size("linear_value_head_dim", default=128)
    key_heads, key_dim = size("linear_num_key_heads", default=16), size("linear_key_head_dim", default=128)
    kernel = size("linear_conv_kernel_dim", default=4)
    keys, values = key_heads * key_dim, value_heads * value_dim
    through = 2 * keys + values
    params = hidden * (through + values + 2 * value_heads) + through * kernel + values * hidden
    return StateLayers(count, through * (kernel - 1), value_heads * value_dim * key_dim, params, recurrent_bytes=_recurrent_bytes(facts))


def _kimi_delta(facts: Mapping[str, Any], hidden: int, count: int, name: str) -> StateLayers:
    """Kimi Linear: a convolution over queries, keys and values, and a state in 32 bits (`kda_state_shape`, `kda_state_dtype`)."""
    inner = facts.get("linear_attn_config")
    given: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
    heads = read_size(given, name, "num_heads") or read_size(facts, name, "linear_num_heads") or 32
    width = read_size(given, name, "head_dim") or read_size(facts, name, "linear_head_dim") or 128
    kernel = read_size(given, name, "short_conv_kernel_size") or read_size(facts, name, "linear_conv_kernel_dim") or 4
    projected = heads * width
    params = hidden * projected * 4 + 2 * (hidden * width + width * projected) + hidden * heads + 3 * projected * kernel
    return StateLayers(count, 3 * projected * (kernel - 1), heads * width * width, params, recurrent_bytes=4)


def _short_convolution(size: Any, hidden: int, count: int) -> StateLayers:
    """LFM2: a gated convolution over a few tokens, without a recurrent state."""
    kernel, channels = size("conv_L_cache"), size("conv_dim", default=hidden)
    return StateLayers(count, channels * (kernel - 1), 0, hidden * 3 * channels + channels * kernel + channels * hidden)


def _mamba2(facts: Mapping[str, Any], size: Any, heads: int, hidden: int, count: int) -> StateLayers:
    """Granite 4, Nemotron-H, Bamba, Falcon-H1, Zamba2: the groups' inputs go through the convolution, too."""
    expanded = size("mamba_d_ssm", default=hidden * size("mamba_expand", default=2))
    head_dim = read_size(facts, "", "mamba_head_dim", "mamba_headdim")
    if head_dim is None:
        given = facts.get("mamba_d_head")
        head_dim = given if isinstance(given, int) and given > 0 else expanded // heads
    inner = heads * head_dim
    groups, state = size("mamba_n_groups", "n_groups", "mamba_ngroups", default=1), size("mamba_d_state", "ssm_state_size")
    kernel = size("mamba_d_conv", "conv_kernel", default=4)
    params = hidden * (2 * inner + 2 * groups * state + heads) + (inner + 2 * groups * state) * kernel + inner * hidden
    return StateLayers(
        count, inner * (kernel - 1), heads * head_dim * state, params, groups=groups, group=2 * state * (kernel - 1), recurrent_bytes=_recurrent_bytes(facts),
    )  # fmt: skip


def _mamba1(size: Any, hidden: int, count: int) -> StateLayers:
    """Jamba: the convolution runs over the expanded inputs, and each of them has a state of its own."""
    inner, state, kernel = hidden * size("mamba_expand", default=2), size("mamba_d_state"), size("mamba_d_conv")
    rank = size("mamba_dt_rank", default=-(-hidden // 16))
    params = hidden * 2 * inner + inner * (rank + 2 * state) + rank * inner + inner * (state + kernel) + inner * hidden
    return StateLayers(count, inner * (kernel - 1), inner * state, params)


def _recurrent_bytes(facts: Mapping[str, Any]) -> int | None:
    """Return the bytes that the model's own config asks for (`Qwen3_5ForConditionalGenerationConfig`, `NemotronHForCausalLMConfig`).

    Every published Qwen3.5 config asks for 32 bits, and Nemotron-H takes them unless its config says otherwise.
    """
    kind = str(facts.get("model_type") or "")
    if kind.startswith("nemotron_h"):
        return _STATE_BYTES.get(str(facts.get("mamba_ssm_cache_dtype") or "float32"))
    if kind.startswith(("qwen3_5", "qwen3_6")):
        return _STATE_BYTES.get(str(facts.get("mamba_ssm_dtype") or "float32"))
    return None
