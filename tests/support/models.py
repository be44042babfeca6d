"""Shapes and settings that the tests of the preflight share."""

from __future__ import annotations

from typing import Any

from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.settings import VllmSettings

LLAMA_8B_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def llama_8b(**change: Any) -> ModelArchitecture:
    return from_config({**LLAMA_8B_CONFIG, **change}, "Llama-3.1-8B")


def engine(share: Any = 0.9, **change: Any) -> VllmSettings:
    return VllmSettings(model="llama", gpu_memory_utilization=share, **{"max_model_len": 8192, **change})


def card(gib: float = 23.58, used_mib: float = 0.0, name: str = "RTX 3090") -> DeviceMemory:
    return DeviceMemory(name, "cuda", gib * 1024, used_mib)
