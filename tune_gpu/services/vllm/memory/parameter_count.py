"""Compute a decoder's number of parameters from its shapes, and the width of its feed-forward layers from that number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.services.vllm.memory.cache_layers import LayerMix, StateLayers
from tune_gpu.services.vllm.memory.latent_attention import LatentShapes


@dataclass(frozen=True)
class Shapes:
    """Shapes of a decoder-only transformer."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    mla: bool

    @property
    def attention(self) -> float:
        """Return the number of parameters of one layer's query, key, value and output projections."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def embedding(self) -> float:
        """Return the number of parameters of the input and the output embedding."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def intermediate_for(self, params: float) -> int:
        """Return the width of a gated feed-forward layer that explains the number of parameters."""
        width = ((params - self.embedding) / self.layers - self.attention) / (3 * self.hidden)
        return max(self.hidden, round(width / 64) * 64)

    def params(
        self, facts: Mapping[str, Any], intermediate: int, experts: int, moe_intermediate: int, mix: LayerMix | None = None,
        states: StateLayers | None = None,
    ) -> float:
        """Return the number of parameters of a decoder with gated feed-forward layers, with experts and states if it has any."""
        kind = str(facts.get("model_type", ""))
        matrices = 2 if kind in _UNGATED else 3
        mixers = (mix.attention if mix else self.layers) * self._attention(facts) + (states.count * states.params if states else 0.0)
        total = self.embedding + mixers + self.layers * 2 * self.hidden + _per_layer_inputs(facts, self.layers, self.hidden)
        feed_forward = mix.feed_forward if mix else self.layers
        if facts.get("use_double_wide_mlp"):  # in the layers that read another layer's cache (Gemma 4 E2B)
            total += int(facts.get("num_kv_shared_layers") or 0) * matrices * self.hidden * intermediate
        if not experts:
            width = facts.get("shared_intermediate_size") if kind == "granitemoehybrid" else None
            return total + feed_forward * matrices * self.hidden * (width or intermediate)
        moe_layers = expert_layers(facts, feed_forward) if mix is None or mix.experts is None else mix.experts
        dense = matrices * self.hidden * int(facts.get("intermediate_size_mlp") or intermediate)
        expert_layer = matrices * self.hidden * (experts * moe_intermediate + _shared(facts, moe_intermediate)) + experts * self.hidden
        return total + (feed_forward - moe_layers) * dense + moe_layers * expert_layer

    def _attention(self, facts: Mapping[str, Any]) -> float:
        if not self.mla:
            gate = self.hidden * self.head_dim * self.heads  # a third of the queries' size again, where the output is gated
            return self.attention + (gate if _gates_its_output(facts) else 0)
        return LatentShapes.of(facts).attention(self.hidden, self.heads)


_UNGATED = ("opt", "gpt2", "falcon", "gpt_bigcode", "phi", "bloom", "gpt_neox", "nemotron_h", "nemotron", "starcoder2", "mpt")
"""Types whose feed-forward layers have two matrices."""


def _gates_its_output(facts: Mapping[str, Any]) -> bool:
    given = facts.get("attn_output_gate")
    return bool(given) if given is not None else str(facts.get("model_type", "")).startswith(("qwen3_next", "qwen3_5"))


def _shared(facts: Mapping[str, Any], moe_intermediate: int) -> int:
    """Return the width of the experts that every token passes."""
    given = facts.get("moe_shared_expert_intermediate_size")
    if isinstance(given, int) and given > 0:
        return int(facts.get("n_shared_experts") or 1) * given
    own = sum(int(facts.get(key) or 0) for key in ("shared_expert_intermediate_size", "shared_intermediate_size"))
    kind = str(facts.get("model_type", ""))
    beside = moe_intermediate if kind.startswith("llama4") else 0
    if kind.startswith("gemma4"):  # its experts work beside the usual feed-forward network
        beside = int(facts.get("intermediate_size") or 0)
    return int(facts.get("n_shared_experts") or 0) * moe_intermediate + own + beside


def expert_layers(facts: Mapping[str, Any], layers: int) -> int:
    """Return how many of a model's feed-forward layers have experts."""
    every, period = facts.get("interleave_moe_layer_step") or facts.get("decoder_sparse_step"), facts.get("expert_layer_period")
    if isinstance(period, int) and period > 0:  # Jamba
        return len(range(int(facts.get("expert_layer_offset") or 0), layers, period))
    if isinstance(every, int) and every > 1:
        return layers // every
    return layers - min(int(facts.get("first_k_dense_replace") or 0), layers)


def _per_layer_inputs(facts: Mapping[str, Any], layers: int, hidden: int) -> float:
    """Return the parameters of an embedding for each layer (Gemma 3n and 4), and of its projections."""
    width = facts.get("hidden_size_per_layer_input")
    if not isinstance(width, int) or width < 1:
        return 0.0
    return layers * width * (float(facts.get("vocab_size_per_layer_input") or facts.get("vocab_size") or 0) + 3 * hidden)


def projector_params(part: Mapping[str, Any] | None, hidden: int) -> float:
    """Return the number of parameters between an encoder for images and a text model of this hidden size, 0 without one.

    Qwen's mergers join the patches of a square before their two layers, once more for each deepstack layer. Others have two layers.
    """
    if part is None:
        return 0.0
    width = part.get("embed_dim") if part.get("mlp_ratio") else None
    width = int(width or part.get("hidden_size") or part.get("embed_dim") or part.get("d_model") or 0)
    if part.get("out_hidden_size") and part.get("mlp_ratio") is None and width:
        joined = width * int(part.get("spatial_merge_size") or 2) ** 2
        return (1 + len(part.get("deepstack_visual_indexes") or [])) * float(joined * joined + joined * hidden)
    return float(width * hidden + hidden * hidden) if width else 0.0


def tower_params(part: Mapping[str, Any] | None) -> float:
    """Return the number of parameters of the encoder that a `vision_config` or `audio_config` describes, 0 without one."""
    if part is None:
        return 0.0
    depth = part.get("depth") or part.get("num_hidden_layers") or part.get("encoder_layers") or 0
    width = part.get("embed_dim") if part.get("mlp_ratio") else None
    width = width or part.get("hidden_size") or part.get("embed_dim") or part.get("d_model") or 0
    inner = part.get("intermediate_size") or part.get("encoder_ffn_dim") or width * float(part.get("mlp_ratio") or 4)
    return float(depth) * (4 * width * width + (3 if part.get("hidden_act") == "silu" else 2) * width * inner)
