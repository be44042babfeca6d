"""The preflight is cheap: less than a millisecond for one candidate, less than a second for 100,000."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.config.schema import ExperimentConfig, ParameterSpec
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.memory_values import ALONE
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many

pytestmark = pytest.mark.benchmark
COUNT = 100_000


def test_one_candidate_and_a_hundred_thousand() -> None:
    model, device, random = llama_8b(), card(), np.random.default_rng(0)
    columns = {
        "gpu_memory_utilization": random.uniform(0.2, 0.99, COUNT), "max_model_len": random.integers(512, 60000, COUNT),
        "max_num_seqs": random.integers(1, 512, COUNT), "max_num_batched_tokens": random.integers(512, 8192, COUNT),
        "enforce_eager": random.choice([True, False], COUNT), "kv_cache_dtype": random.choice(["auto", "fp8"], COUNT),
    }
    beside = BesideMany({"whisper": random.uniform(500.0, 3000.0, COUNT)}, random.uniform(50.0, 200.0, COUNT))
    all_s = min(_timed(lambda: predict_many(engine(), beside, columns, device, model)) for _ in range(3))
    one_s = min(_timed(lambda: predict(engine(), ALONE, device, model)) for _ in range(50))
    print(f"one: {1e3 * one_s:.3f} ms; {COUNT}: {all_s:.3f} s; {one_s / (all_s / COUNT):.0f} times cheaper each")
    assert one_s < 1e-3
    assert all_s < 1.0
    assert one_s / (all_s / COUNT) > 20


def test_a_whole_space_with_conditions() -> None:
    """As `tune-gpu plan` and `launch` ask: the configurations laid out and predicted."""
    config = ExperimentConfig()
    config.services.vllm.model = "Qwen/Qwen2.5-3B-Instruct"
    config.parameters = {
        "share": ParameterSpec("vllm.gpu_memory_utilization", low=0.3, high=0.9, step=0.05),
        "context": ParameterSpec("vllm.max_model_len", values=[1024 * times for times in (1, 2, 4, 6, 8, 12, 16, 20, 24, 32)]),
        "sequences": ParameterSpec("vllm.max_num_seqs", values=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        "eager": ParameterSpec("vllm.enforce_eager", values=[True, False], kind="categorical"),
        "cache": ParameterSpec("vllm.kv_cache_dtype", values=["auto", "fp8"], kind="categorical"),
        "batch": ParameterSpec("vllm.max_num_batched_tokens", values=[512, 1024, 2048, 4096, 8192], when={"eager": [False]}),
        "ears": ParameterSpec("whisper.model", values=["tiny", "base", "small"]),
        "beam": ParameterSpec("whisper.beam_size", values=[1, 3, 5], when={"ears": ["base", "small"]}),
    }
    preflight, space = Preflight(config, card(), None, {"vllm": "0.32.0"}), SearchSpace.from_specs(config.parameters)
    _, found = preflight.predict_space(space)
    all_s = min(_timed(lambda: preflight.predict_space(space)) for _ in range(3))
    print(f"{len(found)} configurations: {all_s:.3f} s")
    assert len(found) == 109_200
    assert all_s < 1.0


def _timed(call: object) -> float:
    assert callable(call)
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
