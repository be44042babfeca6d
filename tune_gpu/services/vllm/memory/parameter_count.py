"""Compute a decoder's number of parameters from its shapes, and the width of its feed-forward layers from that number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

    def params(self, facts: Mapping[str, Any], intermediate: int, experts: int, moe_intermediate: int) -> float:
        """Return the number of parameters of a decoder with gated feed-forward layers, with experts if it has any."""
        matrices = 2 if str(facts.get("model_type", "")) in ("opt", "gpt2", "falcon", "gpt_bigcode", "phi", "bloom", "gpt_neox") else 3
        dense = matrices * self.hidden * intermediate
        if not experts:
            return self.embedding + self.layers * (self._attention(facts) + dense + 2 * self.hidden)
        dense_layers = int(facts.get("first_k_dense_replace") or 0)
        shared = int(facts.get("n_shared_experts") or 0) * moe_intermediate + int(facts.get("shared_expert_intermediate_size") or 0)
        expert_layer = 3 * self.hidden * (experts * moe_intermediate + shared) + experts * self.hidden
        moe_layers = self.layers - dense_layers
        return self.embedding + self.layers * (self._attention(facts) + 2 * self.hidden) + dense_layers * dense + moe_layers * expert_layer

    def _attention(self, facts: Mapping[str, Any]) -> float:
        if not self.mla:
            return self.attention
        return LatentShapes.of(facts).attention(self.hidden, self.heads)


def tower_params(part: Mapping[str, Any] | None) -> float:
    """Return the number of parameters of the encoder that a `vision_config` or `audio_config` describes, 0 without one."""
    if part is None:
        return 0.0
    depth = part.get("depth") or part.get("num_hidden_layers") or part.get("encoder_layers") or 0
    width = part.get("embed_dim") if part.get("mlp_ratio") else None
    width = width or part.get("hidden_size") or part.get("embed_dim") or part.get("d_model") or 0
    inner = part.get("intermediate_size") or part.get("encoder_ffn_dim") or width * float(part.get("mlp_ratio") or 4)
    return float(depth) * (4 * width * width + (3 if part.get("hidden_act") == "silu" else 2) * width * inner)
