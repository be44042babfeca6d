"""Embedding and reranker models through the same arithmetic: decoders without an output layer, and encoders without a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.memory_values import ALONE, MemoryVerdict
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.architecture import from_config, read_architecture
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.pooling import as_served
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many

MINILM: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
    "vocab_size": 30522, "max_position_embeddings": 512,
}  # fmt: skip
GIB = 2**30


@pytest.mark.parametrize(("architecture", "flags", "pooling"), [
    ("LlamaForCausalLM", {}, False), ("LlamaForCausalLM", {"runner": "pooling"}, True), ("LlamaForCausalLM", {"task": "embed"}, True),
    ("LlamaForCausalLM", {"convert": "classify"}, True), ("LlamaModel", {}, True), ("Qwen3ForSequenceClassification", {}, True),
    ("LlamaBidirectionalModel", {}, True), ("Qwen2ForRewardModel", {}, True), ("LlamaModel", {"runner": "generate"}, False),
    ("Qwen2_5OmniModel", {}, False),
])
def test_flags_and_the_class_say_what_is_served(architecture: str, flags: dict[str, Any], pooling: bool) -> None:
    assert as_served(llama_8b(architectures=[architecture]), flags).pooling is pooling


def test_a_converted_decoder_has_no_output_layer_and_no_sampler() -> None:
    writing = estimate_memory(engine(enforce_eager=True), card(), llama_8b(), version="0.20.2")
    embedding = estimate_memory(engine(enforce_eager=True, extra_args={"runner": "pooling"}), card(), llama_8b(), version="0.20.2")
    assert writing.weights - embedding.weights == pytest.approx(128256 * 4096 * 2)
    assert embedding.activation < 0.6 * writing.activation
    assert embedding.block_bytes == writing.block_bytes
    assert embedding.tokens > writing.tokens


def test_an_encoder_keeps_no_cache() -> None:
    found = predict(engine(0.3, max_model_len=512), ALONE, card(), from_config(MINILM, "MiniLM"))
    assert found.verdict is MemoryVerdict.FITS
    assert found.kv_cache_tokens is not None
    assert found.kv_cache_tokens.value == 0
    assert found.max_context == 512
    assert "without a KV cache" in found.reason


def test_an_encoder_starts_with_the_smallest_share() -> None:
    """Its share is not compared with what it takes; only the card's free memory is."""
    model = from_config(MINILM, "MiniLM")
    assert predict(engine(0.01, max_model_len=512), ALONE, card(), model).verdict is MemoryVerdict.FITS
    full = card(used_mib=card().total_mib - 300)
    assert predict(engine(0.01, max_model_len=512), ALONE, full, model).verdict is MemoryVerdict.INFEASIBLE
    assert predict(engine(0.9, max_model_len=512), ALONE, card(used_mib=8000), model).verdict is MemoryVerdict.INFEASIBLE


@given(share=st.floats(0.01, 0.94), used=st.floats(0, 24000))
def test_many_encoders_have_the_verdict_of_the_one(share: float, used: float) -> None:
    model, device = from_config(MINILM, "MiniLM"), card(used_mib=used)
    many = predict_many(engine(max_model_len=512), BesideMany(), {"gpu_memory_utilization": np.array([share])}, device, model)
    assert many.verdict_of(0) is predict(engine(share, max_model_len=512), ALONE, device, model).verdict


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "modernbert"])
def test_encoder_types_are_modelled(kind: str) -> None:
    model = from_config({**MINILM, "model_type": kind}, kind)
    assert model.refusal is None
    assert model.cacheless


def folder_with(tmp_path: Path, **files: Any) -> Path:
    for name, content in {"config": MINILM, **files}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_the_longest_text_is_the_authors_limit_of_sentence_transformers(tmp_path: Path) -> None:
    assert read_architecture(folder_with(tmp_path)).max_context == 512
    limited = read_architecture(folder_with(tmp_path, sentence_bert_config={"max_seq_length": 256}))
    assert (limited.max_context, limited.default_context) == (256, 256)
    assert predict(engine(0.3, max_model_len=None), ALONE, card(), limited).max_context == 256
    with pytest.raises(UserError, match="max_model_len=512"):
        predict(engine(0.3, max_model_len=512), ALONE, card(), limited)


@pytest.mark.parametrize("content", [[], {}, {"do_lower_case": True}, {"max_seq_length": None}, {"max_seq_length": "256"}, {"max_seq_length": 0}, {"max_seq_length": True}])
def test_a_limit_that_is_no_number_of_tokens_is_none(tmp_path: Path, content: Any) -> None:
    assert read_architecture(folder_with(tmp_path, sentence_bert_config=content)).max_context == 512


def test_of_several_files_the_first_that_is_not_empty_counts(tmp_path: Path) -> None:
    files = {"sentence_bert_config": {}, "sentence_roberta_config": {"max_seq_length": 128}, "sentence_xlnet_config": {"max_seq_length": 64}}
    assert read_architecture(folder_with(tmp_path, **files)).max_context == 128
