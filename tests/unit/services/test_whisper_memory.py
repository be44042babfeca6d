"""Whisper's memory, against the table in faster-whisper's README (large-v2 on a card, small on a CPU; MB there are MiB of nvidia-smi)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.faster_whisper.memory import whisper_mib
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.memory_values import Beside, MemoryVerdict
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many


@pytest.mark.parametrize(("model", "kind", "device", "batch", "mib"), [
    ("large-v2", "float16", "cuda", 1, 4525), ("large-v2", "int8", "cuda", 1, 2926), ("large-v2", "float16", "cuda", 8, 6090),
    ("small", "float32", "cpu", 1, 2257), ("small", "int8", "cpu", 1, 1477),
])
def test_against_its_authors_table(model: str, kind: str, device: str, batch: int, mib: float) -> None:
    value, sigma = whisper_mib(WhisperSettings(model=model, compute_type=kind, beam_size=5), device, batch)
    assert abs(value - mib) < 2 * sigma
    assert value == pytest.approx(mib, rel=0.15)


def test_larger_costs_more() -> None:
    sizes = [whisper_mib(WhisperSettings(model=model), "cuda")[0] for model in ("tiny.en", "base", "small", "medium", "large-v3")]
    assert all(low < high for low, high in itertools.pairwise(sizes))
    narrow, wide = (whisper_mib(WhisperSettings(model="base", beam_size=beam), "cpu")[0] for beam in (1, 5))
    assert narrow < wide
    assert whisper_mib(WhisperSettings(model="base", compute_type="int8"), "cpu")[0] < whisper_mib(WhisperSettings(model="base", compute_type="float32"), "cpu")[0]


def test_a_batch_is_doubted_by_what_it_may_hold() -> None:
    """faster-whisper decodes up to `batch_size` pieces of 30 s together; a short utterance is one piece, whatever the setting."""
    settings = WhisperSettings(model="large-v2", compute_type="float16", beam_size=5, batch_size=8)
    value, sigma = whisper_mib(settings, "cuda")
    one, eight = (whisper_mib(settings, "cuda", pieces)[0] for pieces in (1, 8))
    assert one == whisper_mib(replace(settings, batch_size=1), "cuda")[0]
    assert value - 2 * sigma < one < value < eight < value + 2 * sigma


def test_a_batch_that_may_not_fit_is_not_said_to_fit_and_not_refused() -> None:
    plain, batched = (WhisperSettings(model="large-v2", compute_type="float16", beam_size=5, batch_size=size) for size in (1, 8))
    spare = engine(0.74, enforce_eager=True)
    taken = [whisper_mib(one, "cuda") for one in (plain, batched)]
    alone = [predict(spare, Beside({"whisper": mean}, sigma), card(), llama_8b()).verdict for mean, sigma in taken]
    assert alone == [MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN]
    beside = BesideMany({"whisper": np.array([mean for mean, _ in taken])}, np.array([sigma for _, sigma in taken]))
    many = predict_many(spare, beside, {}, card(), llama_8b(), count=2)
    assert [many.verdict_of(index) for index in (0, 1)] == [MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN]


def test_auto_is_the_fastest_type_that_the_device_has_and_that_is_8_bits() -> None:
    """CTranslate2 4.8 on this CPU said int8_float32 of `auto`, and float32 of `default`; its documentation: the fastest that is supported."""
    for device, kind in (("cuda", "int8_float16"), ("cpu", "int8_float32")):
        assert whisper_mib(WhisperSettings(model="large-v3", compute_type="auto"), device) == whisper_mib(WhisperSettings(model="large-v3", compute_type=kind), device)


def test_an_unknown_model_is_a_wide_guess() -> None:
    known, unknown = (whisper_mib(WhisperSettings(model=model), "cuda") for model in ("Systran/faster-whisper-base.en", "someone/my-model"))
    assert unknown[1] / unknown[0] > 3 * known[1] / known[0]
    assert whisper_mib(WhisperSettings(model="large-v3-turbo"), "cuda") == whisper_mib(WhisperSettings(model="turbo"), "cuda")


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"whisper\.compute_type=int3: not allowed. Set one of default"):
        whisper_mib(WhisperSettings(compute_type="int3"), "cpu")
    with pytest.raises(UserError, match=r"whisper\.model=huge: no such size\. Set one of tiny, base"):
        whisper_mib(WhisperSettings(model="huge"), "cpu")
    with pytest.raises(UserError, match=r"whisper\.beam_size=0"):
        whisper_mib(WhisperSettings(beam_size=0), "cpu")
