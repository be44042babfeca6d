"""The layout of the cache: groups of layers that share a block table, with blocks of the same bytes in each group.

By `v1/core/kv_cache_utils.py` (groups, page sizes), `v1/kv_cache_interface.py` (blocks of a request) and `platforms/interface.py`
(`_align_hybrid_block_size`: the blocks of a model that also keeps states).
"""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import Number, ceil_div, maximum, minimum
from tune_gpu.services.vllm.memory.cache_layers import AttentionLayers
from tune_gpu.services.vllm.memory.engine_rules import EngineRules

_SMALLEST_BLOCK, _SMALLEST_LATENT_BLOCK = 16, 128


@dataclass(frozen=True)
class Tables:
    """Block tables of one kind."""

    count: int
    window: int | None
    """Tokens that their layers keep; None for all."""
    scale: int = 1
    """Size of their blocks in multiples of the usual block, where their layers take less memory per token than the others."""


@dataclass(frozen=True)
class KvLayout:
    """Layout of the cache."""

    bytes_per_token: float
    """Bytes for one token of a block, in one group."""
    tables: tuple[Tables, ...]
    state_tables: int = 0
    """Block tables of layers that keep one state per sequence."""
    state_bytes: float = 0.0
    """Bytes of one layer's state."""
    layer_token_bytes: float = 0.0
    """Bytes for one token of one attention layer, which sets the size of a block that holds a state."""
    smallest_block: int = _SMALLEST_BLOCK
    states_of_a_request: int = 1
    batches_in_flight: int = 1

    @classmethod
    def of(cls, model: ModelArchitecture, rules: EngineRules, kv_bytes: float, cards: int, width: int = 2, prefix_caching: bool | None = None) -> KvLayout:
        """Return the layout of a model on one card.

        Args:
            model: its shapes.
            rules: those of the version. Without the manager of several groups every layer keeps every token.
            kv_bytes: bytes of a number in the cache.
            cards: among which the heads are divided.
            width: bytes of a number in a state.
            prefix_caching: the flag; None for the version's default.
        """
        kinds = [(layers, _token_bytes(model, layers, rules, kv_bytes, cards)) for layers in model.cache_layers]
        if not model.states or not rules.v1:
            return cls(*_without_states(kinds, rules), batches_in_flight=rules.batches_in_flight)
        caching = rules.hybrid_prefix_caching if prefix_caching is None else prefix_caching
        token = max((token for _, token in kinds), default=0.0)
        size, tables = _grouped([(layers.count, layers.window) for layers, _ in kinds] + [(model.states.count, -1)])
        ordinary = tuple(Tables(count, window, _scale(token, own)) for (count, window), (_, own) in zip(tables, kinds, strict=False))
        return cls(
            token * size, ordinary, tables[-1][0], model.states.page_bytes(width, cards), token,
            _SMALLEST_LATENT_BLOCK if model.mla else _SMALLEST_BLOCK, 2 if caching else 1, rules.batches_in_flight,
        )  # fmt: skip

    def block_tokens(self, block_size: Number) -> Number:
        """Return the tokens of a block: the asked size, or as many as take the memory of one state."""
        if not self.state_tables:
            return block_size
        step = maximum(block_size, self.smallest_block)
        return maximum(block_size, step * ceil_div(self.state_bytes, step * self.layer_token_bytes))

    def blocks_of_a_request(self, context: Number, batch_tokens: Number, block_size: Number) -> Number:
        """Return the blocks of one sequence of `context` tokens: all of it in the groups that attend to all, the window in the others.

        `block_size` is that of `block_tokens`.
        """
        total: Number = self.state_tables * self.states_of_a_request
        for tables in self.tables:
            size = block_size * tables.scale
            blocks = ceil_div(context, size)
            if tables.window is not None:
                kept = tables.window - 1 + self.batches_in_flight * batch_tokens
                blocks = ceil_div(minimum(kept, context), size) + 1
            total = total + tables.count * blocks
        return total

    @property
    def full_groups(self) -> int:
        """Return the number of block tables whose layers keep every token."""
        return sum(tables.count for tables in self.tables if tables.window is None)

    @property
    def sliding_groups(self) -> int:
        """Return the number of block tables whose layers keep a window."""
        return sum(tables.count for tables in self.tables if tables.window is not None)

    @property
    def groups(self) -> int:
        """Return the number of block tables."""
        return self.full_groups + self.sliding_groups + self.state_tables

    @property
    def plain(self) -> bool:
        """Return True if one block table holds every token."""
        return self.groups == 1 and self.full_groups == 1


def _token_bytes(model: ModelArchitecture, layers: AttentionLayers, rules: EngineRules, kv_bytes: float, cards: int) -> float:
    if model.mla and not rules.latent_attention:
        return 2 * max(1, model.heads // cards) * 256 * kv_bytes
    if model.mla:
        return float(ceil_div(model.head_dim * kv_bytes, rules.mla_alignment_bytes) * rules.mla_alignment_bytes)
    return layers.token_values(cards) * kv_bytes


def _without_states(kinds: list[tuple[AttentionLayers, float]], rules: EngineRules) -> tuple[float, tuple[Tables, ...]]:
    """Return the bytes of a block per token, and the block tables.

    Layers that keep the same tokens form one group, whatever their shapes. Otherwise the layers with less memory per token get larger
    blocks if these fill the memory of the others exactly, or else are padded.
    """
    windows = {layers.window for layers, _ in kinds}
    if len(windows) <= 1 or not rules.hybrid_manager:
        window = windows.pop() if len(windows) == 1 and rules.hybrid_manager else None
        return sum(layers.count * token for layers, token in kinds), (Tables(1, window),) if kinds else ()
    token = max(token for _, token in kinds)
    size, tables = _grouped([(layers.count, layers.window) for layers, _ in kinds])
    return token * size, tuple(Tables(count, window, _scale(token, own)) for (count, window), (_, own) in zip(tables, kinds, strict=True))


def _scale(largest: float, own: float) -> int:
    return int(largest // own) if own and largest % own == 0 else 1


def _grouped(kinds: list[tuple[int, int | None]]) -> tuple[int, list[tuple[int, int | None]]]:
    """Return the layers of a group, and how many groups each kind of layers has (`_get_kv_cache_groups_uniform_page_size`).

    Groups are as large as the smallest kind, or as the largest if that is less than half as large again. The last group of a kind is padded.
    """
    counts = [count for count, _ in kinds]
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    return size, [(ceil_div(count, size), window) for count, window in kinds]
