"""Configs as published: with the class's defaults left out, other names, and the text model at any depth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import class_defaults
from tests.support.models import LLAMA_8B_CONFIG
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.services.vllm.memory.config_classes import KV_HEADS

OTHER_SIZES = {"num_hidden_layers": 22, "num_attention_heads": 12, "num_key_value_heads": 4, "hidden_size": 1536, "vocab_size": 50000}


@cache
def short(name: str) -> dict[str, Any]:
    """The config of a class as `save_pretrained` writes it."""
    return as_json(instances()[name].to_diff_dict())


@cache
def instances() -> dict[str, Any]:
    """One of each class that transformers makes without a download, by model type."""
    mapping = class_defaults.configuration_mapping()
    made = {name: class_defaults.made(mapping[name]) for name in mapping}
    return {name: instance for name, instance in made.items() if instance is not None}


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(config, default=str)))


def test_the_table_is_that_of_the_installed_transformers() -> None:
    assert json.loads(class_defaults.PATH.read_text()) == json.loads(class_defaults.as_text(class_defaults.table()))


def test_every_class_is_read_alike_with_and_without_its_defaults(tmp_path: Path) -> None:
    read = 0
    for name, instance in instances().items():
        found = []
        for config in (as_json(instance.to_dict()), short(name)):
            (tmp_path / "config.json").write_text(json.dumps(config))
            found.append(read_architecture(tmp_path))
        whole, without = found
        assert (whole.refusal is None) == (without.refusal is None), name
        if whole.refusal is None:
            assert whole == without, name
            read += 1
        else:
            assert len(whole.refusal) > 20, name
    assert read > 150


def test_every_class_has_the_sizes_that_vllm_reads_of_it() -> None:
    compared = 0
    for name, instance in instances().items():
        model = from_config(short(name), "m")
        if model.refusal is None:
            assert_as_vllm(model, instance.get_text_config(), name)
            compared += 1
    assert compared > 150


def test_other_sizes_than_a_class_has_are_read_as_the_class_derives_them() -> None:
    compared = 0
    for name, instance in instances().items():
        if instance.get_text_config() is not instance or from_config(as_json(instance.to_dict()), "m").refusal is not None:
            continue
        other = class_defaults.made(type(instance), **OTHER_SIZES)
        if other is None:
            continue
        model = from_config({"model_type": name, **OTHER_SIZES}, "m")
        if model.refusal is None:
            assert_as_vllm(model, other, name)
            compared += 1
    assert compared > 60


def assert_as_vllm(model: ModelArchitecture, text: Any, name: str) -> None:
    """As `ModelArchConfigConvertorBase` of vLLM 0.32 takes them from the object that transformers makes."""
    if getattr(text, "is_heterogeneous", False):
        text.allow_global_per_layer_attribute_access = True
    heads, hidden = text.num_attention_heads, text.hidden_size
    assert (model.layers, model.hidden, model.vocab) == (text.num_hidden_layers, hidden, text.vocab_size), name
    if model.mla:
        assert model.head_dim == text.kv_lora_rank + text.qk_rope_head_dim, name
        return
    assert model.heads == heads, name
    assert model.head_dim == (getattr(text, "head_dim", None) or hidden // heads), name
    one = getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False)
    inner = getattr(getattr(text, "attn_config", None), "kv_n_heads", None)
    stated = next((value for key in KV_HEADS if (value := getattr(text, key, None)) is not None), heads)
    assert model.kv_heads == (1 if one else inner or stated), name
    types = getattr(text, "layer_types", None)
    if types and model.sliding_window:
        assert model.sliding_layers == sum("sliding" in kind for kind in types), name


GEMMA_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024},
    "vision_config": {"hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
}  # fmt: skip


def test_gemma_3_4b_as_google_publishes_it() -> None:
    model = from_config(GEMMA_4B, "gemma-3-4b-it")
    assert (model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim, model.vocab) == (34, 2560, 8, 4, 256, 262208)
    assert (model.sliding_window, model.sliding_layers, model.tied, model.max_context) == (1024, 29, True, 131072)
    assert model.params == pytest.approx(4.30e9, rel=0.005)
    assert model.refusal is None


def test_a_text_model_two_levels_down_and_the_towers_beside_it() -> None:
    """Qwen2.5-Omni-7B, whose weights vLLM 0.10.2 logged as 16.74 GiB (vllm#25970)."""
    thinker = {
        "model_type": "qwen2_5_omni_thinker",
        "text_config": {"model_type": "qwen2_5_omni_text", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
                        "num_key_value_heads": 4, "num_hidden_layers": 28, "vocab_size": 152064},
        "audio_config": {"encoder_layers": 32, "d_model": 1280, "encoder_ffn_dim": 5120},
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420},
    }  # fmt: skip
    model = from_config({"model_type": "qwen2_5_omni", "thinker_config": thinker}, "m")
    assert (model.layers, model.kv_heads, model.head_dim, model.sliding_layers) == (28, 4, 128, 0)
    assert model.params * 2 / 2**30 == pytest.approx(16.74, rel=0.02)


def test_a_talker_is_no_part_of_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {}}}))
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 99999999}}')
    assert read_architecture(tmp_path).weights_bytes is None


@pytest.mark.parametrize("key", ["text_config", "llm_config", "language_config", "thinker_config", "decoder"])
def test_a_class_that_is_not_known_keeps_its_text_model_anywhere(key: str) -> None:
    model = from_config({"model_type": "own-code", "hidden_size": 7, "wrapped": 1, key: LLAMA_8B_CONFIG}, "m")
    assert dataclasses.replace(model, name="Llama-3.1-8B") == from_config(LLAMA_8B_CONFIG, "Llama-3.1-8B")


def test_nesting_without_end_is_not_modelled() -> None:
    config: dict[str, Any] = dict(LLAMA_8B_CONFIG)
    for _ in range(40):
        config = {"model_type": "own-code", "text_config": config}
    assert "nested deeper" in (from_config(config, "m").refusal or "")


def test_shapes_of_the_whole_are_not_those_of_its_text_model() -> None:
    model = from_config({"model_type": "llava", "hidden_size": 8, "num_hidden_layers": 3, "text_config": {"model_type": "llama"}}, "m")
    assert (model.layers, model.hidden) == (32, 4096)


def test_a_flat_config_of_a_class_that_nests_is_read_as_its_class_does() -> None:
    model = from_config({**LLAMA_8B_CONFIG, "model_type": "qwen2_vl"}, "m")
    assert (model.layers, model.kv_heads, model.multimodal) == (32, 8, True)


@pytest.mark.parametrize(("outer", "text", "tied"), [
    ({"model_type": "llava_onevision", "tie_word_embeddings": False}, {"model_type": "qwen2", "tie_word_embeddings": True}, True),
    ({"model_type": "mistral3"}, {"model_type": "mistral"}, False),
    ({"model_type": "gemma3"}, {"model_type": "gemma3_text"}, True),
    ({"model_type": "own-code", "tie_word_embeddings": True}, dict(LLAMA_8B_CONFIG, tie_word_embeddings=None), True),
])
def test_embeddings_are_tied_as_the_text_part_or_else_the_whole_says(outer: dict[str, Any], text: dict[str, Any], tied: bool) -> None:
    assert from_config({**outer, "text_config": text}, "m").tied is tied


def test_one_value_for_all_layers_may_stand_in_a_list() -> None:
    assert from_config({**LLAMA_8B_CONFIG, "num_key_value_heads": [8] * 32}, "m").kv_heads == 8
