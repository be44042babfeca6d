"""Weights of multi-head latent attention against what vLLM printed; none of these logs made a rule."""

from __future__ import annotations

from typing import Any

import pytest

from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.settings import VllmSettings

GIB = 2**30
LITE: dict[str, Any] = {
    "model_type": "deepseek_v2", "num_hidden_layers": 27, "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
    "vocab_size": 102400, "max_position_embeddings": 163840, "tie_word_embeddings": False, "q_lora_rank": None,
}
R1: dict[str, Any] = {
    **LITE, "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128,
    "q_lora_rank": 1536, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3, "vocab_size": 129280, "quantization_config": {"quant_method": "fp8"},
}


@pytest.mark.parametrize(("config", "cards", "version", "printed"), [
    (LITE, 1, "0.5.0", 29.301),  # vllm#4650: nothing is kept beside the checkpoint
    (LITE, 8, "0.7.2", 3.97),  # absorbed products: 0.2 GiB on each card
    (R1, 8, "0.11.2", 79.739),  # down projections on every card, and kv_b_proj twice
])
def test_as_vllm_printed(config: dict[str, Any], cards: int, version: str, printed: float) -> None:
    settings = VllmSettings(model="m", tensor_parallel_size=cards, gpu_memory_utilization=0.9, max_model_len=8192)
    budget = estimate_memory(settings, DeviceMemory("H200", "cuda", 139.8 * 1024), from_config(config, "m"), None, version=version)
    assert float(budget.weights) / GIB == pytest.approx(printed, rel=0.01)
