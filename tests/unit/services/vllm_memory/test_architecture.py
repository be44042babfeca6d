"""Shapes from a config.json, and what is recognised and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import LLAMA_8B_CONFIG, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.memory.architecture import from_config, read_architecture
from tune_gpu.services.vllm.memory.model_catalogue import catalogue, known_model


def test_parameter_counts_match_what_the_authors_publish() -> None:
    assert llama_8b().params == pytest.approx(8.03e9, rel=0.001)
    qwen = from_config({"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896,
                        "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True}, "q")
    assert qwen.params == pytest.approx(0.494e9, rel=0.002)
    assert qwen.head_dim == 64
    experts = from_config({"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "hidden_size": 2048,
                           "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
                           "vocab_size": 151936, "tie_word_embeddings": False}, "moe")
    assert experts.params == pytest.approx(30.53e9, rel=0.005)
    latent = from_config({"model_type": "deepseek_v3", "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168,
                          "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
                          "first_k_dense_replace": 3, "vocab_size": 129280, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
                          "v_head_dim": 128, "q_lora_rank": 1536}, "deepseek")
    assert latent.params == pytest.approx(671e9, rel=0.005)
    assert (latent.mla, latent.kv_heads, latent.head_dim) == (True, 1, 576)


def test_unspecified_tied_embeddings_follow_the_family() -> None:
    """Google's config of Gemma 3 1B leaves it out; it has 0.99989 billion parameters, and would have 1.3 with an output layer of its own."""
    gemma = {"model_type": "gemma3_text", "num_hidden_layers": 26, "hidden_size": 1152, "num_attention_heads": 4, "num_key_value_heads": 1,
             "head_dim": 256, "intermediate_size": 6912, "vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512,
             "sliding_window_pattern": 6}
    assert from_config(gemma, "a-snapshot").params == pytest.approx(999_885_952, rel=0.001)
    assert from_config({**gemma, "tie_word_embeddings": False}, "a-snapshot").params > 1.3e9
    assert not from_config({**gemma, "model_type": "llama"}, "a-snapshot").tied


@pytest.mark.parametrize(
    ("change", "longest", "assumed"),
    [
        ({}, 4096, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 4096, 4096),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096, 4096),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 4096, 4096),
        ({"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}}, 131072, 4096),
    ],
)
def test_a_context_that_rotations_stretch_is_what_vllm_derives(change: dict[str, Any], longest: int, assumed: int) -> None:
    """`vllm/config/model.py`, `_get_and_verify_max_len` (0.32)."""
    model = from_config({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
                         "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 4096, **change}, "m")
    assert (model.max_context, model.default_context) == (longest, assumed)


def test_other_names_of_the_same_facts() -> None:
    gpt2 = from_config({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024, "n_inner": 3072}, "gpt2")
    assert (gpt2.layers, gpt2.kv_heads, gpt2.head_dim, gpt2.max_context) == (12, 12, 64, 1024)
    nested = from_config({"model_type": "mistral3", "text_config": LLAMA_8B_CONFIG, "vision_config": {"num_hidden_layers": 24, "hidden_size": 1024,
                          "intermediate_size": 4096}}, "vision")
    assert nested.multimodal
    assert nested.vision_params == pytest.approx(24 * (4 * 1024**2 + 2 * 1024 * 4096) + 1024 * 4096 + 4096**2)  # with the projector
    assert nested.layers == 32


@pytest.mark.parametrize(("change", "word"), [
    ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*"}, "names the kinds of 4 layers"),
    ({"model_type": "rwkv7"}, "recurrent"),
    ({"model_type": "granitemoehybrid"}, "keep a"),
    ({"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}, "recurrent"),
    ({"attention": "hybrid linear"}, "recurrent"),
    ({"model_type": "whisper", "is_encoder_decoder": True}, "encoder-decoder"),
    ({"cross_attention_layers": [3, 8]}, "cross-attention"),
    ({"attention": "full + cross-attention"}, "cross-attention"),
    ({"attention": "chunked"}, "chunked local"),
    ({"model_type": "deepseek_v32"}, "indexer"),
])
def test_what_is_not_modelled_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    refusal = llama_8b(**change).refusal
    assert refusal is not None
    assert word in refusal


@pytest.mark.parametrize(("change", "layers"), [
    ({}, 0),
    ({"sliding_window": 4096}, 32),
    ({"sliding_window": 4096, "use_sliding_window": False}, 0),
    ({"sliding_window": 1024, "sliding_window_pattern": 4}, 24),
    ({"sliding_window": 4096, "sliding_window_pattern": "LLLG"}, 24),
    ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16),
    ({"attention": "sliding 3:1 hybrid"}, 24),
])
def test_layers_with_a_sliding_window(change: dict[str, Any], layers: int) -> None:
    model = llama_8b(**change)
    assert model.refusal is None
    assert model.sliding_layers == layers


def test_a_table_without_vocabulary_is_completed_by_a_known_model() -> None:
    model = from_config({"num_hidden_layers": 64, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 5120, "params_b": 32.8, "attention": "full"}, "Qwen3-32B")
    assert (model.vocab, model.intermediate, model.guessed) == (151936, 25600, ())
    unknown = from_config({"num_hidden_layers": 33, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 4096, "params_b": 8.0}, "new-model")
    assert set(unknown.guessed) >= {"vocab", "intermediate"}
    assert 12000 < unknown.intermediate < 16000


@pytest.mark.parametrize(("name", "known"), [
    ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen2.5-7B"), ("meta-llama/Meta-Llama-3-8B", "Llama-3-8B"), ("unsloth/Llama-3.2-3B-Instruct", "Llama-3.2-3B"),
    ("Qwen2-7B-Instruct", "Qwen2-7B"), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Qwen-7B"), ("DeepSeek-R1-0528-Qwen3-8B", "Qwen3-8B"),
    ("Qwen/Qwen2.5-VL-7B-Instruct-AWQ", "Qwen2.5-VL-7B"), ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"), ("google/gemma-2-2b-it", "Gemma-2-2B"),
    ("Qwen/Qwen3-Next-80B-A3B", None), ("Qwen/Qwen3-Embedding-8B", None), ("nobody/nothing-7B", None), ("", None),
])
def test_a_model_of_the_table_by_the_name_that_people_use(name: str, known: str | None) -> None:
    assert known_model(name) == (catalogue()[known] if known else None)


def test_every_model_of_the_table_has_the_parameters_that_its_shapes_make() -> None:
    """Towers for images apart, which its shapes do not show."""
    for name, facts in catalogue().items():
        shapes = from_config({fact: value for fact, value in facts.items() if fact != "params_b"}, name)
        made = shapes.params / 1e9 / facts["params_b"]
        assert 0.69 < made < 1.07 if facts.get("_multimodal") or shapes.mla else made == pytest.approx(1, abs=0.03), name


def test_a_folder_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: there is no such file"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UserError, match="not a whole JSON file"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="a list, not a mapping"):
        read_architecture(tmp_path)


@pytest.mark.parametrize(("config", "why"), [
    ({"model_type": "x", "hidden_size": 8}, "has no num_hidden_layers"),
    ({"num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 9, "intermediate_size": 9}, "num_attention_heads"),
    ({**LLAMA_8B_CONFIG, "num_attention_heads": None}, "names neither num_attention_heads"),
    ({**LLAMA_8B_CONFIG, "num_key_value_heads": [8, 8, 4]}, "num_key_value_heads differs layer by layer"),
    ({**LLAMA_8B_CONFIG, "hidden_size": {"a": 1}}, "hidden_size is not a single number"),
    ({**LLAMA_8B_CONFIG, "intermediate_size": [8, 16]}, "intermediate_size differs layer by layer"),
    ({**LLAMA_8B_CONFIG, "model_type": "deci", "num_key_value_heads": None, "block_configs": [{"attention": {}}]}, "block_configs do not say"),
    ({**LLAMA_8B_CONFIG, "model_type": "own-code", "num_key_value_heads": None, "auto_map": {"AutoConfig": "evil.Config"}}, "its class is not known"),
    ({**LLAMA_8B_CONFIG, "layer_types": ["full_attention"]}, "layer_types name 1 layers"),
    ({**LLAMA_8B_CONFIG, "rope_scaling": ["linear"]}, "not one of a decoder that is understood"),
    ({**LLAMA_8B_CONFIG, "model_type": "vit"}, "generates no text"),
    ({**LLAMA_8B_CONFIG, "model_type": "minicpm3", "kv_lora_rank": 256}, "latent attention of a type"),
    ({**LLAMA_8B_CONFIG, "model_type": "own-code", "head_dim": 192, "v_head_dim": 128}, "keys and values of different sizes"),
])
def test_what_a_config_does_not_say_is_not_modelled(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusal = read_architecture(tmp_path).refusal
    assert refusal is not None
    assert why in refusal


@pytest.mark.parametrize(("config", "gib"), [
    # As logged: Qwen3-VL-2B 4.24 GiB (three deepstack mergers beside the one), Qwen2.5-Omni-7B 16.74, LLaVA 1.6 Mistral 7B 14.08.
    ({"model_type": "qwen3_vl", "tie_word_embeddings": True, "text_config": {
        "model_type": "qwen3_vl_text", "num_hidden_layers": 28, "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 6144, "tie_word_embeddings": True, "max_position_embeddings": 262144},
      "vision_config": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]}}, 4.24),
    ({"model_type": "llava_next", "text_config": {"model_type": "mistral", "vocab_size": 32064, "sliding_window": None}}, 14.08),
])
def test_projectors_and_mergers_are_in_the_weights(config: dict[str, Any], gib: float) -> None:
    from tune_gpu.services.vllm.memory.parts import weights

    assert weights(from_config(config), None, 2, 1).value / 2**30 == pytest.approx(gib, rel=0.01)


def test_m_rope_has_a_table_of_four_times_the_context() -> None:
    from tune_gpu.services.vllm.memory.parts import weights

    plain, sections = llama_8b(), llama_8b(rope_scaling={"rope_type": "default", "mrope_section": [16, 24, 24]})
    assert weights(sections, None, 2, 1).value - weights(plain, None, 2, 1).value == 3 * 131072 * 128 * 2
    assert from_config({"model_type": "qwen2_5_vl"}).rotations == 4


def test_the_text_model_is_found_at_any_depth() -> None:
    inner = {"model_type": "qwen2_5_omni_text", "num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    model = from_config({"model_type": "qwen2_5_omni", "thinker_config": {"model_type": "qwen2_5_omni_thinker", "text_config": inner}})
    assert (model.refusal, model.layers, model.kv_heads, model.head_dim) == (None, 28, 4, 128)
