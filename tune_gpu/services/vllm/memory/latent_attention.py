"""Memory of multi-head latent attention (DeepSeek V2 and V3, Kimi K2) beyond an even division of the checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.services.vllm.memory.engine_rules import EngineRules


@dataclass(frozen=True)
class LatentShapes:
    """Ranks and head sizes. If a table does not give one, DeepSeek's own is used."""

    rank: int
    rope: int
    nope: int
    value: int
    query_rank: int
    """0 if the queries are not compressed."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> LatentShapes:
        """Read the shapes from a config's facts."""
        def size(key: str, default: int) -> int:
            return int(facts.get(key) or default)

        return cls(size("kv_lora_rank", 512), size("qk_rope_head_dim", 64), size("qk_nope_head_dim", 128), size("v_head_dim", 128),
                   size("q_lora_rank", 0))

    def attention(self, hidden: int, heads: int) -> float:
        """Return the number of parameters of one layer's projections."""
        query = heads * (self.nope + self.rope)
        queries = query * self.query_rank if self.query_rank else hidden * query
        return self.down(hidden) + queries + self.up(heads) + heads * self.value * hidden

    def down(self, hidden: int) -> float:
        """Return the number of parameters of the projections into the latent vectors, which every card has whole (`ReplicatedLinear`)."""
        return hidden * (self.rank + self.rope + self.query_rank)

    def up(self, heads: int) -> float:
        """Return the number of parameters of the projection out of the latent vector, `kv_b_proj`."""
        return self.rank * heads * (self.nope + self.value)

    def absorbed(self, hidden: int, heads: int) -> float:
        """Return the number of parameters of `W_Q_UK` and `W_UV_O`, the products with the projections before and after."""
        return heads * self.rank * ((self.query_rank or hidden) + hidden)

    def kept_beside(self, rules: EngineRules, layers: int, hidden: int, heads: int, stored: float, width: int, cards: int) -> float:
        """Return the bytes on each card beyond its part of the checkpoint, whose linear layers take `stored` bytes per parameter.

        From 0.7.1 until 0.8.1 the absorbed products were made, as wide as an 8-bit checkpoint or else in the served width (vllm#14770
        removed them). Since then `kv_b_proj` is kept a second time, in the served width.
        """
        copied = self.down(hidden) * stored * (1 - 1 / cards)
        if not rules.latent_attention:
            return layers * copied
        if rules.version < (0, 8, 2):
            return layers * (copied + self.absorbed(hidden, heads) * (1 if stored == 1 else width) / cards)
        return layers * (copied + self.up(heads) * width / cards)
