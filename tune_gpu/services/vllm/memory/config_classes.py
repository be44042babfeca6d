"""Read a model's `config.json` as transformers does: its text part, with the defaults and the other names of its class.

`class_defaults.json` holds the defaults of transformers' classes (`python -m tests.class_defaults` makes it). Code that comes with a model
(`auto_map`) is never run: a class that transformers does not have is unknown, and so is every value that only this class could give.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
"""Sizes that the KV cache cannot be computed without."""
SHAPES = (*SIZES, "sliding_window", "kv_lora_rank")
"""Facts that shape the KV cache. If a class derives one of them in its own way, the config must give it."""
FACTS = (
    *SIZES, "vocab_size", "intermediate_size", "ffn_hidden_size", "ffn_dim", "tie_word_embeddings", "hidden_act",
    "n_head_kv", "num_kv_heads", "multi_query_group_num", "num_attention_groups", "multi_query", "new_decoder_architecture", "attn_config",
    "hidden_size_per_head", "attention_head_dim", "max_position_embeddings", "max_seq_len", "seq_length", "model_max_length",
    "sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern", "layer_types", "attention_chunk_size",
    "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "q_lora_rank",
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok", "num_experts_per_token", "moe_topk",
    "moe_top_k", "moe_intermediate_size", "n_shared_experts", "shared_expert_intermediate_size", "first_k_dense_replace",
    "is_encoder_decoder", "is_decoder", "cross_attention_layers", "cross_layer_interval", "depth", "embed_dim", "mlp_ratio", "encoder_layers",
    "encoder_ffn_dim", "d_model",
    "mamba_d_state", "ssm_cfg", "hybrid_override_pattern", "linear_num_value_heads", "attn_layer_period", "full_attention_interval",
    "linear_attn_config", "mamba_expand", "ssm_state_size", "index_topk", "index_head_dim", "block_configs", "per_layer_config",
    "global_head_dim", "num_global_key_value_heads", "swa_num_key_value_heads", "swa_head_dim", "num_sliding_attention_heads",
    "num_attention_heads_per_layer", "num_kv_shared_layers",
    "linear_num_key_heads", "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim", "linear_num_heads", "linear_head_dim",
    "mamba_ssm_dtype", "mamba_ssm_cache_dtype", "mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "mamba_d_head", "mamba_head_dim", "mamba_headdim",
    "mamba_n_groups", "n_groups", "mamba_ngroups", "mamba_d_conv", "conv_kernel", "mamba_d_ssm", "mamba_dt_rank", "conv_L_cache", "conv_dim",
    "attn_layer_offset", "attn_layer_indices", "full_attn_idxs", "expert_layer_period", "expert_layer_offset", "decoder_sparse_step",
    "interleave_moe_layer_step", "intermediate_size_mlp", "shared_intermediate_size", "moe_shared_expert_intermediate_size", "attn_output_gate",
    "attention_k_eq_v", "hidden_size_per_layer_input", "vocab_size_per_layer_input", "out_hidden_size",
)  # fmt: skip
"""Facts that the memory check reads of a config, by their names in transformers."""
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
"""Names in the order of vLLM's `get_total_num_kv_heads`."""
_INSTEAD = {"num_key_value_heads": ("attn_config", "multi_query"), "head_dim": ("kv_lora_rank",)}
"""Facts that replace a size that a class computes in its own way."""
LAYER_KINDS = ("layer_types", "layers_block_type", "hybrid_override_pattern", "linear_attn_config", "full_attention_interval", "attn_layer_indices",
               "full_attn_idxs")  # fmt: skip
"""Keys that say which layer is of which kind."""
_TEXT_PARTS = ("text_config", "decoder", "generator", "llm_config", "language_config", "thinker_config")
"""Keys of the text model in classes that are not in the table: the names of transformers' `get_text_config`, and of models in vLLM."""
_OF_THE_WHOLE = ("dtype", "torch_dtype", "is_encoder_decoder")
"""Facts of the whole config that may apply to its text part."""
_DEEPEST = 8
MOST_LAYERS = 10_000
NOT_GENERATING = "a model of this type alone generates no text: not modelled"


@dataclass(frozen=True)
class TextPart:
    """The text model that a config describes."""

    facts: Mapping[str, Any]
    vision: Mapping[str, Any] | None
    """The part for images, with its class's defaults, or None."""
    audio: Mapping[str, Any] | None
    """The part for audio, with its class's defaults, or None."""
    whole: bool = True
    """False if the checkpoint holds parts that vLLM leaves out (the talker of an omni model)."""
    refusal: str | None = None
    """Reason why the facts do not determine a KV cache."""


@dataclass
class _Node:
    """One level of a config, and the facts of its class."""

    given: Mapping[str, Any]
    kind: Mapping[str, Any] | None
    parents: list[_Node] = field(default_factory=list)

    @property
    def text_key(self) -> str | None:
        """Return the key of the text model, or None if it is this level."""
        if self.kind is not None:
            return self.kind.get("text")
        return next((key for key in _TEXT_PARTS if isinstance(self.given.get(key), Mapping) and self.given[key]), None)

    def part(self, key: str) -> _Node:
        """Return the level below, of the class that its own `model_type` or the class of this level names."""
        given = self.given.get(key)
        kind = self.kind or {}
        if not isinstance(given, Mapping):
            flat = kind.get("flat") and key == self.text_key
            given = {name: value for name, value in self.given.items() if flat and name != "model_type"} or kind.get("absent", {}).get(key, {})
        usual = kind.get("parts", {}).get(key)
        found = class_of(given.get("model_type")) if usual is None or key in kind.get("by_type", ()) else None
        return _Node(given, found or (_table()["classes"].get(usual) if usual else None), [*self.parents, self])

    def facts(self) -> dict[str, Any]:
        """Return the given facts by transformers' names, completed by the class's defaults."""
        if self.kind is None:
            return dict(self.given)
        usual = self.kind["facts"]
        found = {**usual, **self.given}
        for name, value in usual.items():
            if isinstance(value, Mapping) and isinstance(found[name], Mapping):
                found[name] = {**value, **found[name]}
        for name, written in self.kind.get("names", {}).items():
            if written in self.given:
                found[name] = self.given[written]
        return found


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("class_defaults.json").read_text(encoding="utf-8")))


def class_of(model_type: Any) -> Mapping[str, Any] | None:
    """Return the defaults of the class for this `model_type`, or None if transformers does not have it."""
    name = _table()["types"].get(model_type) if isinstance(model_type, str) else None
    return None if name is None else _table()["classes"][name]


def _type_of(kind: Mapping[str, Any]) -> str | None:
    """Return the `model_type` of a class, or None if it has none of its own."""
    table = _table()
    return next((name for name, known in table["types"].items() if table["classes"][known] is kind), None)


def text_part(config: Mapping[str, Any]) -> TextPart:
    """Return the text part of a whole config. Never raise for its content."""
    node = _Node(config, class_of(config.get("model_type")))
    for _ in range(_DEEPEST):
        key = node.text_key
        if key is None:
            break
        node = node.part(key)
    else:
        return TextPart({}, None, None, refusal=f"its text model is nested deeper than {_DEEPEST} levels")
    nodes = [*node.parents, node]
    facts = _with_the_wholes(nodes)
    return TextPart(
        facts, _tower(nodes, "vision_config"), _tower(nodes, "audio_config"), not any("thinker_config" in each.given for each in nodes),
        _unknown(nodes, facts),
    )  # fmt: skip


def _with_the_wholes(nodes: list[_Node]) -> dict[str, Any]:
    facts = nodes[-1].facts()
    if not facts.get("model_type") and nodes[-1].kind is not None and (named := _type_of(nodes[-1].kind)) is not None:
        facts["model_type"] = named
    for name in _OF_THE_WHOLE:
        if nodes[-1].given.get(name) is None:
            outer = next((each.given[name] for each in nodes if each.given.get(name) is not None), None)
            facts = facts if outer is None else {**facts, name: outer}
    tied = _tied(nodes)
    if tied is not None:
        facts = {**facts, "tie_word_embeddings": tied}
    rule = (nodes[-1].kind or {}).get("layers")
    if rule and not facts.get("layer_types") and not facts.get("sliding_window_pattern"):
        facts["layer_types"] = _layer_types(rule, facts)
    named = next((facts[key] for key in ("hybrid_override_pattern", "layer_types") if facts.get(key)), None)
    if not facts.get("num_hidden_layers") and isinstance(named, (str, list)) and nodes[-1].kind is not None:  # Nemotron-H counts its layers by naming them
        facts["num_hidden_layers"] = len(named)
    return facts


def _tied(nodes: list[_Node]) -> bool | None:
    """Return True if input and output embeddings are one, or None if unknown.

    vLLM asks the text part. The default of its class is no evidence, however: the checkpoints of some classes follow the whole config
    there.
    """
    name = "tie_word_embeddings"
    usual = (nodes[-1].kind or {"facts": {}})["facts"].get(name)
    own_value = nodes[-1].given.get(name)
    if own_value is not None and own_value != usual:
        return bool(own_value)
    values = [value for node in nodes if (value := node.facts().get(name)) is not None]
    return all(values) if values else None


def _layer_types(rule: str | list[str] | Mapping[str, Any], facts: Mapping[str, Any]) -> list[str] | None:
    layers, first = facts.get("num_hidden_layers"), facts.get("max_window_layers")
    if not isinstance(layers, int) or not 0 < layers <= MOST_LAYERS:
        return None
    if isinstance(rule, Mapping):  # a pattern, and the kind of the last layer
        return [*(rule["pattern"][index % len(rule["pattern"])] for index in range(layers - 1)), rule["last"]]
    if isinstance(rule, list):
        return [rule[index % len(rule)] for index in range(layers)]
    if facts.get("use_sliding_window") is False or not facts.get("sliding_window") or not isinstance(first, int):
        return None
    return ["sliding_attention" if index >= first else "full_attention" for index in range(layers)]


def _tower(nodes: list[_Node], key: str) -> Mapping[str, Any] | None:
    for node in reversed(nodes):
        if isinstance(node.given.get(key), Mapping) or key in (node.kind or {}).get("parts", {}):
            return node.part(key).facts()
    return None


def _unknown(nodes: list[_Node], facts: Mapping[str, Any]) -> str | None:
    text = nodes[-1]
    for name in SIZES:
        value = facts.get(name)
        if isinstance(value, Mapping) or (isinstance(value, list) and any(item != value[0] for item in value)):
            return f"{name} differs layer by layer"
    types = facts.get("layer_types")
    if isinstance(types, list) and types and len(types) != facts.get("num_hidden_layers"):
        return f"its layer_types name {len(types)} layers, and num_hidden_layers another number"
    if text.kind is None and any("model_type" in node.given for node in nodes) and not any(facts.get(name) for name in KV_HEADS):
        return "its config names no num_key_value_heads, and its class is not known (code that comes with a model is not run)"
    if text.kind is not None:
        if not any((node.kind or {}).get("generates") for node in nodes) and not facts.get("is_decoder"):
            return NOT_GENERATING
        for name in SIZES:
            if name in facts and facts[name] is None and text.kind["facts"].get(name) is not None:
                return f"its config sets {name} to null, where its class has no null"
        for name in text.kind.get("own", ()):
            if facts.get(name) is None and not any(facts.get(other) for other in _INSTEAD.get(name, ())):
                return f"its config leaves out {name}, which its class computes in its own way"
        if "layer_types" in text.kind.get("derived", ()) and not text.kind.get("layers") and not any(facts.get(key) for key in LAYER_KINDS):
            return "its config does not say which of its layers have which attention"
    return None
