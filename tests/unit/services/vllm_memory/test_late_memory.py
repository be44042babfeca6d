"""Memory that is taken after the cache was sized, and the doubt of a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine, llama_8b
from tune_gpu.services.memory_values import ALONE, MemoryVerdict
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many

GLM: dict[str, Any] = {
    "model_type": "glm4_moe", "num_hidden_layers": 92, "hidden_size": 5120, "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 12288, "moe_intermediate_size": 1536, "n_routed_experts": 160, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "vocab_size": 151552, "tie_word_embeddings": False, "max_position_embeddings": 202752,
    "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
}  # fmt: skip


def test_experts_that_ran_out_while_warming_up_are_uncertain() -> None:
    """GLM-4.7 on four cards, 0.15.1: 1.74 GiB wanted for the sampler, 1.69 left, after a cache of 32 GiB was taken."""
    settings = engine(0.9, max_model_len=None, tensor_parallel_size=4)
    model, device = from_config(GLM, "GLM-4.7-NVFP4"), card(94.97, name="RTX PRO 6000 Blackwell")
    found = predict(settings, ALONE, device, model, version="0.15.1")
    assert found.verdict is MemoryVerdict.UNCERTAIN
    assert "warming up" in found.reason
    assert predict(engine(0.8, max_model_len=None, tensor_parallel_size=4), ALONE, device, model, version="0.15.1").verdict is MemoryVerdict.FITS


@pytest.mark.parametrize(("share", "verdict"), [(0.94, MemoryVerdict.FITS), (0.95, MemoryVerdict.UNCERTAIN), (0.98, MemoryVerdict.UNCERTAIN)])
def test_from_0_95_on_a_start_is_not_certain(share: float, verdict: MemoryVerdict) -> None:
    found = predict(engine(share), ALONE, card(79.2, name="H100 80GB"), llama_8b(), version="0.32.0")
    assert found.verdict is verdict
    assert ("a smaller share is safe" in found.reason) is (verdict is MemoryVerdict.UNCERTAIN)


def test_a_measured_engine_is_certain_at_any_share() -> None:
    measured = Calibration(15360.0, 2048.0, None, "0.32.0", {"max_model_len": 8192})
    assert predict(engine(0.96), ALONE, card(79.2, name="H100 80GB"), llama_8b(), measured).verdict is MemoryVerdict.FITS


@given(share=st.floats(0.3, 0.99), sequences=st.integers(1, 1024))
def test_the_many_have_the_verdict_of_the_one(share: float, sequences: int) -> None:
    model, device = from_config(GLM, "GLM-4.7-NVFP4"), card(94.97, name="RTX PRO 6000 Blackwell")
    settings = engine(share, max_num_seqs=sequences, max_num_batched_tokens=8192, tensor_parallel_size=4)
    columns = {"gpu_memory_utilization": np.array([share]), "max_num_seqs": np.array([sequences])}
    many = predict_many(settings, BesideMany(), columns, device, model, version="0.15.1")
    assert many.verdict_of(0) is predict(settings, ALONE, device, model, version="0.15.1").verdict


def test_the_range_is_never_narrower_than_a_hundredth_of_the_share() -> None:
    budget = estimate_memory(engine(enforce_eager=True, max_num_seqs=1), card(79.2, name="H100 80GB"), llama_8b(), version="0.10.0")
    assert budget.doubt > 0.01 * budget.requested
