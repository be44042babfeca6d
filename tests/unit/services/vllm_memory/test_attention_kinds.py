"""What is recognised and refused, or counted, from a config, from a table's words and from a name alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.benchmarks.preflight import evaluate
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.parts import weights
from tune_gpu.services.vllm.memory.weight_formats import published_format
from tune_gpu.services.vllm.settings import VllmSettings

SHAPE: dict[str, Any] = {"num_hidden_layers": 48, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 4096, "params_b": 30}


@pytest.mark.parametrize(("words", "message"), [
    ("GDN + full 3:1", "recurrent"), ("lightning attention 7:1", "recurrent"), ("short conv + GQA", "recurrent"), ("mamba2 hybrid", "recurrent"),
    ("KDA linear", "recurrent"), ("hybrid", "recurrent"), ("MLA + DSA", "indexer"), ("chunked 3:1", "chunked"), ("local", "chunked"),
    ("cross-attention", "cross-attention"), ("encoder-only", "encoder-decoder"), ("alternating sliding/full", "whose number is not given"),
])
def test_words_that_are_refused(words: str, message: str) -> None:
    assert message in (from_config({**SHAPE, "attention": words}).refusal or "")


@pytest.mark.parametrize(("words", "layers"), [
    ("full", 0), ("full, MoE", 0), ("sliding 1:1", 24), ("SWA 3:1", 36), ("iSWA 5:1", 40), ("interleaved sliding (5 local : 1 global)", 40),
    ("sliding 3:1 hybrid", 36),
])
def test_sliding_layers_are_counted_from_words(words: str, layers: int) -> None:
    model = from_config({**SHAPE, "attention": words})
    assert model.refusal is None
    assert model.sliding_layers == layers


@pytest.mark.parametrize("name", [
    "Qwen/Qwen3-Next-80B-A3B", "Qwen3.5-27B", "qwen3.6-35b-a3b-nvfp4", "ai21labs/Jamba-1.5", "nvidia/Nemotron-H-8B", "granite-4.0-h-small",
    "tiiuae/Falcon-H1-7B", "LiquidAI/LFM2-8B", "MiniMaxAI/MiniMax-M1", "moonshotai/Kimi-Linear-48B", "google/gemma-3n-E4B", "gemma-4-31B-it",
    "meta-llama/Llama-4-Scout-17B-16E", "deepseek-ai/DeepSeek-V3.2-Exp", "openai/whisper-large-v3",
])
def test_a_family_is_refused_by_its_name_only_where_no_config_tells_it(name: str) -> None:
    assert from_config({**SHAPE, "attention": "full"}, name).refusal
    assert from_config({**SHAPE, "model_type": "llama"}, name).refusal is None
    row = {"id": "x", "model": name, "gpu": "H100 80GB", "outcome": "ok", "kv_cache_tokens": 1000, "gpu_memory_utilization": 0.9}
    assert evaluate([row], {})["cases"][0]["predicted"]["verdict"] == "not_modelled"


@pytest.mark.parametrize("name", ["Qwen3-32B", "Llama-3.1-8B", "gemma-3-27b-it", "gpt-oss-20b", "Mistral-7B-v0.2", "phi-4", "MiniMax-M2", "DeepSeek-V3", "llama405b", "gemma-4b"])
def test_other_names_are_not(name: str) -> None:
    assert from_config({**SHAPE, "attention": "full"}, name).refusal is None


@pytest.mark.parametrize(("name", "stored"), [
    ("deepseek-ai/DeepSeek-R1-0528", "fp8"), ("deepseek-v3", "fp8"), ("openai/gpt-oss-120b", "mxfp4"), ("moonshotai/Kimi-K2-Thinking", "int4"),
    ("DeepSeek-R1-Distill-Qwen-14B", None), ("unsloth/DeepSeek-V3-bf16", None), ("Qwen3-8B", None),
])
def test_families_that_are_published_quantised(name: str, stored: str | None) -> None:
    found = published_format(name)
    assert (found.name if found else None) == stored


def test_one_row_of_nonsense_does_not_lose_the_others() -> None:
    good = {"id": "a", "model": "Qwen3-8B", "arch": "q", "gpu": "L4", "outcome": "ok", "kv_cache_tokens": 10000, "gpu_memory_utilization": 0.9}
    table = {"q": {**SHAPE, "num_hidden_layers": 36, "params_b": 8.19, "attention": "full"}}
    cases = evaluate([{**good, "id": "b", "total_gib": "many", "max_model_len": {}}, good], table)["cases"]
    assert cases[0]["predicted"]["verdict"] == "not_modelled"
    assert cases[0]["verdict_right"] is None
    assert cases[1]["predicted"]["kv_cache_tokens"] is not None


def test_experts_alone_are_quantised_in_mxfp4() -> None:
    """vLLM 0.19 on an A100: gpt-oss-20b took 13.72 GiB (its hidden size is padded besides)."""
    facts = known_model("gpt-oss-20b")
    assert facts is not None
    taken = weights(from_config(facts, "openai/gpt-oss-20b"), None, 2, 1).value / 2**30
    assert 12.6 < taken < 13.8


@pytest.mark.parametrize(("model", "context", "version", "logged_gib"), [
    ("Llama-3.1-8B", 20000, "0.7.0", 2.07), ("Llama-3.1-8B", 29000, "0.7.0", 2.99), ("Qwen2.5-14B", 131072, "0.7.0", 0.19),
    ("Llama-3.1-8B", 131072, "0.7.3", 0.22), ("Qwen2.5-7B", 131072, "0.8.5", 1.39),
])
def test_v0_profiles_the_whole_context_or_one_chunk(model: str, context: int, version: str, logged_gib: float) -> None:
    """Peaks that logs of V0 show: vllm#10517 (one card), vllm#13061 (two), and posted logs of an A10G (0.7) and of a 22 GB card (0.8.5)."""
    shapes = from_config(known_model(model) or {}, model)
    cards = 2 if "14B" in model else 1
    settings = VllmSettings(gpu_memory_utilization=0.98, max_model_len=context, tensor_parallel_size=cards, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"})
    budget = estimate_memory(settings, DeviceMemory("RTX 3090", "cuda", 24146), shapes, version=version, v1=False)
    assert budget.activation / 2**30 == pytest.approx(logged_gib, abs=0.06)


def test_v0_does_not_chunk_the_prompts_of_latent_attention() -> None:
    rules = EngineRules.of("0.7.3")
    assert rules.chunked_prefill_default(131072, False)
    assert not rules.chunked_prefill_default(131072, True)
    assert rules.chunked_prefill_default(np.array([32768, 32769]), False).tolist() == [False, True]
    assert EngineRules.of("0.32.0").chunked_prefill_default(512, True)
