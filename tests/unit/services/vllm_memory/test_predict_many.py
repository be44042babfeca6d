"""A space at once says of every candidate what is said of it alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.memory_values import MemoryVerdict
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.predict_many import Columns, predict_many

RANDOM = np.random.default_rng(4)
COUNT = 400


def columns() -> dict[str, np.ndarray]:
    return {
        "gpu_memory_utilization": RANDOM.uniform(0.2, 1.0, COUNT), "max_model_len": RANDOM.integers(256, 60000, COUNT),
        "max_num_seqs": RANDOM.integers(1, 600, COUNT), "max_num_batched_tokens": RANDOM.integers(256, 9000, COUNT),
        "enforce_eager": RANDOM.choice([True, False], COUNT), "kv_cache_dtype": RANDOM.choice(["auto", "fp8"], COUNT),
        "quantization": RANDOM.choice(np.array(["awq", None], object), COUNT),
        "enable_chunked_prefill": RANDOM.choice(np.array([True, False, None], object), COUNT),
        "cpu_cores": RANDOM.choice(["0", "1"], COUNT),
        "block_size": RANDOM.choice(np.array([16, 32, None], object), COUNT),
    }


@pytest.mark.parametrize("version", ["0.6.3", "0.11.0", "0.24.0", "0.32.0"])
def test_each_is_as_if_asked_alone(version: str) -> None:
    beside = BesideMany({"whisper": RANDOM.uniform(300.0, 6000.0, COUNT), "embed": RANDOM.uniform(0.0, 900.0, COUNT)}, RANDOM.uniform(0.0, 300.0, COUNT))
    found = predict_many(engine(), beside, columns(), card(used_mib=900), llama_8b(), version=version)
    assert len(found) == COUNT
    for index in range(COUNT):
        alone = found.explain(index)
        assert found.verdict_of(index) is alone.verdict
        assert alone.kv_cache_tokens is not None
        assert found.kv_cache_tokens[index] == pytest.approx(alone.kv_cache_tokens.value, abs=1)
        assert found.max_concurrency[index] == pytest.approx(alone.max_concurrency, abs=1e-3)
        assert found.headroom_mib[index] == pytest.approx(alone.headroom_mib, abs=0.1)
        assert found.shortfall_mib[index] == pytest.approx(alone.shortfall_mib, abs=0.1)
    assert sum(found.count(verdict) for verdict in MemoryVerdict) == COUNT
    assert found.allowed.sum() == COUNT - found.count(MemoryVerdict.INFEASIBLE)


def test_sliding_windows_and_calibrations_too() -> None:
    model = from_config(known_model("Gemma-3-1B") or {}, "gemma")
    measured = Calibration(1950.0, 1200.0, None, "0.32.0", {"max_model_len": 8192, "max_num_seqs": 64, "max_num_batched_tokens": 2048})
    some: Columns = {"gpu_memory_utilization": [0.2, 0.3, 0.6], "max_num_seqs": [8, 64, 256], "max_model_len": [512, 8192, 30000]}
    found = predict_many(engine(), BesideMany(), some, card(11.6), model, measured)
    for index in range(3):
        alone = found.explain(index)
        assert alone.calibrated
        assert alone.kv_cache_tokens is not None
        assert found.kv_cache_tokens[index] == pytest.approx(alone.kv_cache_tokens.value, abs=1)


def test_models_by_name_and_what_is_not_modelled() -> None:
    shapes = {"llama": llama_8b(), "hybrid": llama_8b(model_type="rwkv7")}
    found = predict_many(engine(), BesideMany(), {"model": ["llama", "hybrid", "llama"]}, card(), lambda name: shapes[name])
    assert [found.verdict_of(index) for index in range(3)] == [MemoryVerdict.FITS, MemoryVerdict.NOT_MODELLED, MemoryVerdict.FITS]
    assert np.isnan(found.kv_cache_tokens[1])


def test_bad_columns() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        predict_many(engine(), BesideMany(), {"max_num_seqs": [1, 2], "max_model_len": [512]}, card(), llama_8b())
    with pytest.raises(UserError, match=r"gpu_memory_utilization=1\.2"):
        predict_many(engine(), BesideMany(), {"gpu_memory_utilization": [0.5, 1.2]}, card(), llama_8b())


def test_nothing_varies() -> None:
    found = predict_many(engine(), BesideMany(), {}, card(), llama_8b())
    assert len(found) == 1
    assert found.verdict_of(0) is found.explain(0).verdict
