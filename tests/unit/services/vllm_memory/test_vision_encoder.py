"""The image encoder's peak in the profiling run, by the largest images and videos that a batch holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.vision_encoder import limits_of

GIB = 2**30
TEXT = {"num_hidden_layers": 28, "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144,
        "vocab_size": 151936, "max_position_embeddings": 262144}  # fmt: skip
QWEN3_VL = {"model_type": "qwen3_vl", "text_config": {"model_type": "qwen3_vl_text", **TEXT}, "vision_config": {
    "model_type": "qwen3_vl", "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16, "spatial_merge_size": 2,
    "temporal_patch_size": 2, "deepstack_visual_indexes": [5, 11, 17]}}  # fmt: skip
QWEN2_5_VL = {"model_type": "qwen2_5_vl", **TEXT, "vision_config": {
    "model_type": "qwen2_5_vl", "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2}}
LLAVA = {"model_type": "llava", "text_config": {"model_type": "llama", **TEXT}, "vision_config": {
    "model_type": "clip_vision_model", "num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336, "patch_size": 14}}


def activation_gib(model: ModelArchitecture, version: str = "0.20.2", **flags: Any) -> float:
    settings = engine(**{"max_model_len": 2048, "max_num_seqs": 1, "enforce_eager": True, **flags})
    return float(estimate_memory(settings, card(), model, version=version).activation) / GIB


def test_the_largest_image_of_qwen3_vl_as_a_start_logged_it() -> None:
    """8.13 GiB of cache in 0.9 of a card of 15.92, with weights of 4.24: 1.96 GiB beside them, of which 0.1 are kernels."""
    assert activation_gib(from_config(QWEN3_VL, "Qwen3-VL-2B")) == pytest.approx(1.86, rel=0.1)


@pytest.mark.parametrize("limit", [{"limit_mm_per_prompt": {"image": 0, "video": 0}}, {"language_model_only": True}])
def test_without_images_the_encoder_takes_nothing(limit: dict[str, Any]) -> None:
    model = from_config(QWEN3_VL, "Qwen3-VL-2B")
    assert activation_gib(model, extra_args=limit) < 0.2 * activation_gib(model)


def test_a_longer_context_holds_a_longer_video() -> None:
    model = from_config(QWEN2_5_VL, "Qwen2.5-VL")
    few, many = (activation_gib(model, max_model_len=context) for context in (8192, 65536))
    assert many == pytest.approx(4 * few, rel=0.05)
    assert activation_gib(model, max_model_len=65536, extra_args={"limit_mm_per_prompt.video": 0}) == pytest.approx(few, rel=0.05)


def test_a_batch_of_small_images_fills_the_budget() -> None:
    model = from_config(LLAVA, "llava")
    one, many = (activation_gib(model, max_num_batched_tokens=tokens) for tokens in (2048, 32768))
    assert many > 8 * one


@pytest.mark.parametrize(("version", "included"), [("0.24.0", True), ("0.26.0", False), ("0.27.1", True)])
def test_the_second_runner_profiled_no_encoder_before_0_27(version: str, included: bool) -> None:
    assert (activation_gib(from_config(QWEN3_VL, "Qwen3-VL-2B"), version) > 1) is included


def test_an_encoder_of_unknown_size_is_doubted() -> None:
    unknown = from_config({**LLAVA, "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24}}, "llava")
    assert unknown.encoder is None
    settings = engine(max_model_len=2048, enforce_eager=True)
    assert estimate_memory(settings, card(), unknown, version="0.20.2").doubt > 1.2 * GIB


@pytest.mark.parametrize("flags", [
    {"limit_mm_per_prompt": {"image": 2}}, {"limit-mm-per-prompt": '{"image": 2}'}, {"limit_mm_per_prompt.image": 2}, {"limit_mm_per_prompt": {"image": {"count": 2}}},
])
def test_every_spelling_of_the_limit_is_read(flags: dict[str, Any]) -> None:
    assert limits_of(flags) == {"image": 2}


@given(batch=st.integers(1, 10**6), context=st.integers(1, 10**6), images=st.integers(0, 50))
def test_more_images_never_take_less(batch: int, context: int, images: int) -> None:
    encoder = from_config(LLAVA, "llava").encoder
    assert encoder is not None
    limits = [{"image": images, "video": 0}, {"image": images + 1, "video": 0}]
    assert encoder.peak(batch, context, 2, limits[0], 2048) <= encoder.peak(batch, context, 2, limits[1], 2048)
    assert encoder.peak(batch, context, 2, limits[1], 2048) <= encoder.peak(batch + 576, context, 2, limits[1], 2048)


def test_an_empty_vision_config_is_that_of_its_class() -> None:
    """Qwen3.5-9B on an RTX 5090: 2.44 GiB beside weights and cache, of which 0.6 are graphs and 0.1 kernels."""
    model = from_config({"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}, "vision_config": {}}, "Qwen3.5-9B")
    assert model.encoder is not None
    assert (model.encoder.hidden, model.encoder.patches) == (1152, 65536)
    assert model.encoder.peak(2048, 4096, 2, {}, 4096) / GIB == pytest.approx(1.75, rel=0.1)
