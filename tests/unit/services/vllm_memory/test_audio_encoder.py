"""The audio encoder's peak in the profiling run, by the longest recordings that a batch holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.audio_encoder import AudioEncoder
from tune_gpu.services.vllm.memory.budget import estimate_memory

MIB = 2**20
WHISPER = {"d_model": 1280, "encoder_ffn_dim": 5120, "encoder_layers": 32, "encoder_attention_heads": 20, "num_mel_bins": 128, "max_source_positions": 1500}
QWEN2_AUDIO: dict[str, Any] = {
    "model_type": "qwen2_audio", "architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {"model_type": "qwen2_audio_encoder", **WHISPER},
    "text_config": {"model_type": "qwen2", "intermediate_size": 11008, "max_position_embeddings": 8192, "vocab_size": 156032},
}  # fmt: skip
VOXTRAL: dict[str, Any] = {
    "model_type": "voxtral", "architectures": ["VoxtralForConditionalGeneration"],
    "audio_config": {"model_type": "voxtral_encoder", "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
    "text_config": {"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30, "num_attention_heads": 32,
                    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072, "max_position_embeddings": 131072},
}  # fmt: skip
OF_A_FRAME = 2 * (2 * 1280 + 2 * 5120 + 1280 + 256)
"""Bytes of a frame in the feed-forward layer, with the input and the spectrum."""


def activation(model: ModelArchitecture, **flags: Any) -> float:
    settings = engine(**{"max_model_len": 8192, "max_num_seqs": 1, "max_num_batched_tokens": 8192, "enforce_eager": True, **flags})
    return float(estimate_memory(settings, card(79.1), model, version="0.20.2").activation)


def test_a_batch_holds_ten_recordings_of_thirty_seconds() -> None:
    """8192 tokens // 750, each of 1500 frames."""
    encoder = from_config(QWEN2_AUDIO, "Qwen2-Audio-7B").audio_encoder
    assert encoder is not None
    assert encoder.peak(8192, 8192, 2, {}, 4096) == 10 * 1500 * OF_A_FRAME
    assert encoder.output(8192, 8192, 2, {}, 4096) == 10 * 750 * 4096 * 2
    assert encoder.peak(8192, 8192, 2, {"audio": 2}, 4096) == 2 * 1500 * OF_A_FRAME
    assert encoder.peak(512, 8192, 2, {}, 4096) == 1500 * OF_A_FRAME, "one recording is profiled in any case"


def test_a_recording_of_voxtral_is_as_long_as_the_context() -> None:
    model = from_config(VOXTRAL, "Voxtral-Mini-3B")
    assert model.audio_encoder is not None
    assert model.audio_encoder.peak(2048, 32768, 2, {}, 3072) == 4 * 32768 * OF_A_FRAME
    assert activation(model, max_model_len=32768) > 3 * activation(model, max_model_len=8192)


@pytest.mark.parametrize("limit", [{"limit_mm_per_prompt": {"audio": 0}}, {"language_model_only": True}])
def test_without_audio_the_encoder_takes_nothing(limit: dict[str, Any]) -> None:
    model = from_config(VOXTRAL, "Voxtral-Mini-3B")
    text = from_config({**VOXTRAL["text_config"], "model_type": "llama"}, "text")
    assert activation(model, extra_args=limit) == activation(text)


def test_the_kind_of_item_with_most_tokens_is_profiled() -> None:
    """Qwen2.5-Omni: an image or a video has more tokens than 30 s of audio; without them audio is profiled."""
    vision = {"model_type": "qwen2_5_omni_vision_encoder", "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
    thinker = {"model_type": "qwen2_5_omni_thinker", "audio_config": WHISPER, "vision_config": vision, "text_config": QWEN2_AUDIO["text_config"]}
    model = from_config({"model_type": "qwen2_5_omni", "thinker_config": thinker}, "Qwen2.5-Omni-7B")
    assert model.encoder is not None
    assert model.audio_encoder is not None
    assert activation(model) >= model.encoder.peak(8192, 8192, 2, {}, model.hidden)
    seen = {"image": 0, "video": 0}
    assert activation(model, extra_args={"limit_mm_per_prompt": seen}) < activation(model)
    assert model.audio_encoder.item_tokens(8192, seen) == 750


def doubt(model: ModelArchitecture, limits: dict[str, int]) -> float:
    return float(estimate_memory(engine(enforce_eager=True, extra_args={"limit_mm_per_prompt": limits}), card(79.1), model, version="0.20.2").doubt)


def test_an_encoder_of_unknown_length_is_doubted() -> None:
    unknown = from_config({**VOXTRAL, "model_type": "another_audio"}, "another")
    assert unknown.audio_encoder is None
    assert doubt(unknown, {}) > doubt(from_config(VOXTRAL["text_config"], "text"), {}) + 800 * MIB


def test_audio_of_unknown_length_is_doubted_where_no_image_is_profiled() -> None:
    vision = {"model_type": "qwen3_omni_moe_vision_encoder", "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16}
    model = from_config({**VOXTRAL, "model_type": "another_omni", "vision_config": {**vision, "image_size": 896}}, "omni")
    assert model.encoder is not None
    unseen = {"image": 0, "video": 0}
    assert doubt(model, unseen) > doubt(model, {**unseen, "audio": 0}) + 800 * MIB
    assert doubt(model, {"image": 1}) == doubt(model, {"image": 1, "audio": 0})


@pytest.mark.parametrize("value", [0, -1, True, "1280", 2**40, None])
def test_a_size_that_no_encoder_has_is_no_encoder(value: Any) -> None:
    assert AudioEncoder.of({"d_model": value, "encoder_ffn_dim": 5120}, {"model_type": "qwen2_audio"}) is None


@given(batch=st.lists(st.integers(1, 10**6), min_size=1, max_size=5), context=st.integers(1, 10**6), many=st.integers(0, 50))
def test_many_batches_are_the_batches_one_by_one(batch: list[int], context: int, many: int) -> None:
    for config in (QWEN2_AUDIO, VOXTRAL):
        encoder = from_config(config, "model").audio_encoder
        assert encoder is not None
        together = encoder.peak(np.array(batch), context, 2, {"audio": many}, 2048)
        assert [float(value) for value in np.broadcast_to(together, len(batch))] == [encoder.peak(each, context, 2, {"audio": many}, 2048) for each in batch]
