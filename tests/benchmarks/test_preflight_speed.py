"""The preflight is cheap: less than a millisecond for one candidate, less than a second for 100,000."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.unit.preflight.models import card, engine, llama_8b
from tune_gpu.config import WhisperSettings
from tune_gpu.preflight import predict
from tune_gpu.preflight.vectorised import predict_many

pytestmark = pytest.mark.benchmark
COUNT = 100_000


def test_one_candidate_and_a_hundred_thousand() -> None:
    model, device, random = llama_8b(), card(), np.random.default_rng(0)
    columns = {
        "vllm.gpu_memory_utilization": random.uniform(0.2, 0.99, COUNT), "vllm.max_model_len": random.integers(512, 60000, COUNT),
        "vllm.max_num_seqs": random.integers(1, 512, COUNT), "vllm.max_num_batched_tokens": random.integers(512, 8192, COUNT),
        "vllm.enforce_eager": random.choice([True, False], COUNT), "vllm.kv_cache_dtype": random.choice(["auto", "fp8"], COUNT),
        "whisper.model": random.choice(["tiny", "base", "small"], COUNT), "whisper.beam_size": random.integers(1, 6, COUNT),
    }
    all_s = min(_timed(lambda: predict_many(engine(), WhisperSettings(), columns, device, model)) for _ in range(3))
    one_s = min(_timed(lambda: predict(engine(), WhisperSettings(), device, model)) for _ in range(50))
    print(f"one: {1e3 * one_s:.3f} ms; {COUNT}: {all_s:.3f} s; {one_s / (all_s / COUNT):.0f} times cheaper each")
    assert one_s < 1e-3
    assert all_s < 1.0
    assert one_s / (all_s / COUNT) > 20


def _timed(call: object) -> float:
    assert callable(call)
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
