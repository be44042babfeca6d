"""A KV cache whose size is set (`kv_cache_memory_bytes`): its tokens are exact, and what must be free is what everything takes together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.services.memory_values import ALONE, DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many
from tune_gpu.services.vllm.settings import VllmSettings

MODEL = llama_8b()
TOKEN_BYTES = 131072
"""Of Llama 3.1 8B: 32 layers, 8 heads of 128 for keys and for values, two bytes."""
NODE = DeviceMemory("node", "cpu", 65536.0, 4096.0)


def sized(cache_bytes: int, **values: object) -> VllmSettings:
    return replace(engine(0.5, enforce_eager=True, **values), kv_cache_memory_bytes=cache_bytes)


def ask(settings: VllmSettings, device: DeviceMemory = NODE) -> Prediction:
    return predict(settings, ALONE, device, MODEL, version="0.32.0")


@pytest.mark.parametrize("blocks", [513, 1000, 4097])
def test_the_tokens_are_those_that_fit_into_the_bytes(blocks: int) -> None:
    settings = sized(blocks * 32 * TOKEN_BYTES + 7, block_size=32, max_model_len=8192)
    prediction = ask(settings)
    assert prediction.verdict is MemoryVerdict.FITS
    assert prediction.kv_cache_tokens is not None
    assert prediction.kv_cache_tokens.value == blocks * 32
    assert prediction.kv_cache_tokens.low == pytest.approx(prediction.kv_cache_tokens.high, rel=1e-3)


def test_a_cache_for_less_than_one_sequence_names_the_bytes_that_would_do() -> None:
    prediction = ask(sized(256 * 32 * TOKEN_BYTES - 1, block_size=32, max_model_len=8192))
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    least = int(prediction.reason.partition("at least ")[2].split()[0])
    assert ask(sized(least, block_size=32, max_model_len=8192)).verdict is MemoryVerdict.FITS
    assert ask(sized(least - 32 * TOKEN_BYTES, block_size=32, max_model_len=8192)).verdict is MemoryVerdict.INFEASIBLE


def test_weights_and_cache_must_be_free_together_whatever_the_share_is() -> None:
    half = int(0.5 * NODE.total_mib) * 2**20
    assert ask(replace(sized(half), gpu_memory_utilization=0.1)).verdict is MemoryVerdict.FITS
    prediction = ask(replace(sized(2 * half), gpu_memory_utilization=0.1))
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    assert "MiB with the cache are more than the" in prediction.reason
    assert prediction.least_share is None


def test_on_a_card_the_share_must_be_free_beside() -> None:
    small = sized(9000 * TOKEN_BYTES, max_model_len=8192)
    assert ask(small, card(used_mib=1000)).verdict is MemoryVerdict.FITS
    assert ask(replace(small, gpu_memory_utilization=0.99), card(used_mib=1000)).verdict is MemoryVerdict.INFEASIBLE


def test_candidates_at_once_are_as_if_asked_alone() -> None:
    sizes = np.array([100, 256, 300, 4000, 8000, 20000]) * 32 * TOKEN_BYTES
    for device in (NODE, card(used_mib=900)):
        found = predict_many(sized(1), BesideMany(), {"kv_cache_memory_bytes": sizes, "max_num_seqs": np.arange(8, 14)}, device, MODEL, version="0.32.0")
        for index in range(len(sizes)):
            alone = found.explain(index)
            assert found.verdict_of(index) is alone.verdict
            assert alone.kv_cache_tokens is not None
            assert found.kv_cache_tokens[index] == alone.kv_cache_tokens.value
            assert found.shortfall_mib[index] == pytest.approx(alone.shortfall_mib, abs=0.1)


def test_a_larger_cache_takes_as_much_more_of_the_device() -> None:
    first, second = (ask(sized(blocks * 32 * TOKEN_BYTES)) for blocks in (1000, 2000))
    assert second.takes_mib - first.takes_mib == pytest.approx(1000 * 32 * TOKEN_BYTES / 2**20, abs=0.2)
