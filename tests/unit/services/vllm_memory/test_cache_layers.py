"""Models whose layers do not all keep the same: states, windows, two head sizes, shared caches. Numbers are from logs that people posted."""

from __future__ import annotations

from typing import Any

import pytest

from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.cache_layers import StateLayers
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.kv_layout import KvLayout
from tune_gpu.services.vllm.settings import VllmSettings

GIB = 2**30
QWEN35_27B = {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", "num_hidden_layers": 64, "hidden_size": 5120, "num_attention_heads": 24,
              "num_key_value_heads": 4, "head_dim": 256, "linear_num_value_heads": 48, "intermediate_size": 17408}}
GEMMA_4_31B = {"model_type": "gemma4", "text_config": {
    "model_type": "gemma4_text", "num_hidden_layers": 60, "hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32,
    "num_key_value_heads": 16, "num_global_key_value_heads": 4, "global_head_dim": 512, "head_dim": 256, "attention_k_eq_v": True, "sliding_window": 1024,
    "hidden_size_per_layer_input": 0, "vocab_size": 262144}}  # fmt: skip


def model(**config: Any) -> ModelArchitecture:
    found = from_config(config)
    assert found.refusal is None, found.refusal
    return found


@pytest.mark.parametrize(("config", "version", "kv_bytes", "cards", "caching", "block", "gib", "context", "concurrency"), [
    ({"model_type": "qwen3_5"}, "0.20.0", 2.0, 1, None, 528, 6.56, 4096, 36.91),  # Qwen3.5-9B on an RTX 5090
    ({"model_type": "qwen3_5_moe"}, "0.24.0", 1.0, 1, True, 2096, 5.98, 131072, 4.33),  # Qwen3.6-35B-A3B, prefix caching by its flag
    ({"model_type": "qwen3_next"}, "0.11.0", 1.0, 2, None, 1072, 17.58, 32768, 84.29),  # Qwen3-Next-80B on two cards, cache of 8 bits
])
def test_a_hybrid_s_blocks_and_concurrency_are_those_of_the_log(
    config: dict[str, Any], version: str, kv_bytes: float, cards: int, caching: bool | None, block: int, gib: float, context: int, concurrency: float,
) -> None:  # fmt: skip
    layout = KvLayout.of(model(**config), EngineRules.of(version), kv_bytes, cards, prefix_caching=caching)
    assert layout.block_tokens(16) == block
    blocks = gib * GIB // (layout.bytes_per_token * block)
    assert blocks / layout.blocks_of_a_request(context, 2048, block) == pytest.approx(concurrency, rel=0.005)


def test_the_tokens_of_a_hybrid_s_log_are_blocks_of_each_table() -> None:
    """vllm#40691: Qwen3.5-27B logged 290,864 tokens and 33.04 x 32,768: 1487 blocks of 784 tokens, shared by four tables."""
    layout = KvLayout.of(model(**QWEN35_27B), EngineRules.of("0.19.0"), 2.0, 1)
    block = layout.block_tokens(16)
    assert (block, layout.groups) == (784, 4)
    assert 1487 // layout.groups * block == 290864
    assert 1487 / layout.blocks_of_a_request(32768, 16384, block) == pytest.approx(33.04, abs=0.005)


def test_an_account_counts_in_the_blocks_that_hold_a_state() -> None:
    settings = VllmSettings(gpu_memory_utilization=0.85, max_model_len=4096)
    budget = estimate_memory(settings, DeviceMemory("RTX 5090", "cuda", 32109), model(model_type="qwen3_5"), version="0.20.0")
    assert budget.knobs.block_size == 528
    assert budget.tokens % 528 == 0
    assert budget.weights / GIB == pytest.approx(17.66, rel=0.02)  # as logged


@pytest.mark.parametrize(("version", "states"), [("0.27.1", 1), ("0.28.0", 2)])
def test_prefix_caching_keeps_two_states_of_a_request(version: str, states: int) -> None:
    assert KvLayout.of(model(model_type="qwen3_5"), EngineRules.of(version), 2.0, 1).states_of_a_request == states


def test_the_flag_for_prefix_caching_is_read() -> None:
    def states(**extra: Any) -> int:
        settings = VllmSettings(max_model_len=4096, extra_args=extra)
        return estimate_memory(settings, DeviceMemory("x", "cuda", 80000), model(model_type="qwen3_5")).layout.states_of_a_request

    assert states() == states(enable_prefix_caching=True) == 2
    assert states(no_enable_prefix_caching=True) == states(**{"enable-prefix-caching": False}) == 1


@pytest.mark.parametrize(("config", "attention", "states", "billions"), [
    # Granite 4.0 H Tiny, Nemotron-H 8B, Jamba (its class's shapes are those of Jamba v0.1), LFM2 1.2B, Kimi Linear 48B.
    ({"model_type": "granitemoehybrid", "num_hidden_layers": 40, "hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 4,
      "num_local_experts": 64, "num_experts_per_tok": 6, "intermediate_size": 512, "shared_intermediate_size": 1024, "mamba_n_heads": 48, "mamba_d_head": 64,
      "mamba_d_state": 128, "mamba_expand": 2, "vocab_size": 100352, "tie_word_embeddings": True,
      "layer_types": (["mamba"] * 9 + ["attention"]) * 4}, 4, 36, 6.94),
    ({"model_type": "nemotron_h", "num_hidden_layers": 52, "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"}, 4, 24, 8.10),
    ({"model_type": "jamba"}, 4, 28, 51.6),
    ({"model_type": "lfm2", "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
      "conv_dim": 2048, "conv_L_cache": 3, "layer_types": ["conv", "conv", "full_attention", "conv"] * 4}, 4, 12, 1.17),
    ({"model_type": "kimi_linear", "first_k_dense_replace": 1, "head_dim": 72,
      "linear_attn_config": {"num_heads": 32, "head_dim": 128, "short_conv_kernel_size": 4, "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
                             "kda_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26]}}, 7, 20, 48.0),
])
def test_families_with_states_have_their_layers_and_parameters(config: dict[str, Any], attention: int, states: int, billions: float) -> None:
    found = model(**config)
    assert found.states is not None
    assert (sum(layers.count for layers in found.cache_layers), found.states.count) == (attention, states)
    assert found.params / 1e9 == pytest.approx(billions, rel=0.05)


def test_states_are_divided_among_cards_and_groups_are_not() -> None:
    states = StateLayers(1, conv=4096 * 3, recurrent=64 * 64 * 128, params=0, groups=1, group=2 * 128 * 3)
    assert states.page_bytes(2, 1) == (4096 * 3 + 768) * 2 + 64 * 64 * 128 * 2
    assert states.page_bytes(2, 4) == (4096 * 3 // 4 + 768) * 2 + 16 * 64 * 128 * 2


def test_gemma_4_has_two_head_sizes_in_blocks_of_the_same_bytes() -> None:
    """A log of vLLM 0.19.1: 98,912 tokens of 8 bits, in groups of ten layers."""
    layout = KvLayout.of(model(**GEMMA_4_31B), EngineRules.of("0.19.1"), 1.0, 1)
    assert (layout.full_groups, layout.sliding_groups) == (1, 5)
    assert layout.bytes_per_token == 10 * 2 * 16 * 256  # those of the sliding layers: the others' blocks hold twice the tokens
    assert [tables.scale for tables in layout.tables] == [2, 1]
    assert layout.blocks_of_a_request(4096, 2048, 16) == 128 + 5 * (3071 // 16 + 1 + 1)


def test_gemma_4_on_an_h100_reserves_two_batches_for_each_window() -> None:
    """The least memory that vLLM 0.3x asks for one sequence of 131072 tokens: two batches of 8192 are in flight."""
    layout = KvLayout.of(model(**GEMMA_4_31B), EngineRules.of("0.30.0"), 2.0, 1)
    assert layout.blocks_of_a_request(131072, 8192, 16) == 4096 + 5 * ((1023 + 16384) // 16 + 1 + 1)


def test_layers_that_read_another_layer_s_cache_have_none() -> None:
    found = model(model_type="gemma3n")
    assert sum(layers.count for layers in found.cache_layers) == 35 - 15


def test_chunked_attention_keeps_every_token_by_default() -> None:
    """vLLM switches its manager of several groups off for Llama 4 (`VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE`)."""
    scout = model(model_type="llama4")
    assert KvLayout.of(scout, EngineRules.of("0.30.0"), 2.0, 1).bytes_per_token == 48 * 2 * 8 * 128 * 2
    assert scout.params / 1e9 == pytest.approx(108.5, rel=0.02)  # 109 billion, with the vision tower
    maverick = model(model_type="llama4", text_config={"model_type": "llama4_text", "num_local_experts": 128, "interleave_moe_layer_step": 2})
    assert maverick.params / 1e9 == pytest.approx(400, rel=0.02)


def test_blocks_with_heads_of_their_own_are_counted_each() -> None:
    blocks = [{"attention": {"n_heads_in_group": 8, "no_op": False}}, {"attention": {"n_heads_in_group": None, "no_op": True}},
              {"attention": {"n_heads_in_group": 16}}]
    found = from_config({"model_type": "nemotron-nas", "num_hidden_layers": 3, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": None,
                         "intermediate_size": 28672, "vocab_size": 128256, "block_configs": blocks, "params_b": 2.0, "num_kv_heads": 8})
    assert [(layers.count, layers.kv_heads) for layers in found.cache_layers] == [(1, 4), (1, 8)]
    assert KvLayout.of(found, EngineRules.of("0.32.0"), 2.0, 1).bytes_per_token == (4 + 8) * 2 * 128 * 2


@pytest.mark.parametrize(("text", "billions"), [
    # Gemma 4 31B, 26B-A4B (experts beside a feed-forward network in each layer) and E2B (embeddings for each layer), without their towers.
    (GEMMA_4_31B["text_config"], 30.7),
    ({"num_hidden_layers": 30, "hidden_size": 2816, "intermediate_size": 2112, "num_attention_heads": 16, "num_key_value_heads": 8,
      "num_global_key_value_heads": 2, "attention_k_eq_v": True, "sliding_window": 1024, "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8,
      "moe_intermediate_size": 704, "hidden_size_per_layer_input": 0}, 25.2),
    ({"num_hidden_layers": 35, "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 8, "num_key_value_heads": 1, "sliding_window": 512,
      "num_kv_shared_layers": 20, "use_double_wide_mlp": True, "hidden_size_per_layer_input": 256}, 4.65),
])
def test_gemma_4_has_the_parameters_that_are_published(text: dict[str, Any], billions: float) -> None:
    assert model(model_type="gemma4_text", **{key: value for key, value in text.items() if key != "model_type"}).params / 1e9 == pytest.approx(billions, rel=0.03)
