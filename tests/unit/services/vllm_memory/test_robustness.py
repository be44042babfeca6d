"""Whatever a config, a row of a log or a candidate holds: an answer, or one clear line; never another error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.benchmarks.preflight import evaluate, load_rows
from tests.support.models import LLAMA_8B_CONFIG, card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.memory_check.cards import find_card
from tune_gpu.services.memory_values import ALONE, MemoryVerdict, Prediction
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.learning import read_start_log
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.weight_formats import named_format, weight_format

DATA = Path(__file__).resolve().parents[3] / "data" / "vllm_memory"
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = sorted({
    *LLAMA_8B_CONFIG, "text_config", "vision_config", "head_dim", "params_b", "attention", "sliding_window", "use_sliding_window", "sliding_window_pattern",
    "layer_types", "kv_lora_rank", "qk_rope_head_dim", "q_lora_rank", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts",
    "first_k_dense_replace", "quantization_config", "multi_query", "is_encoder_decoder", "attention_chunk_size", "mamba_d_state", "n_layer", "n_head", "n_embd",
})
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**33) | st.floats(allow_nan=True) | st.text(max_size=12)
    | st.sampled_from(["MLA", "sliding 5:1", "full", "sliding 0:0", "bfloat16", "awq", "gemma2", "LLLG", "hybrid", "compressed-tensors"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=4), max_leaves=8,
)


@QUICK
@given(change=st.dictionaries(st.sampled_from(KEYS), anything, max_size=5), name=st.text(max_size=20))
def test_a_config_with_odd_values(change: dict[str, Any], name: str) -> None:
    model = _read({**LLAMA_8B_CONFIG, **change}, name)
    if model is not None:
        _is_an_answer(model)


@QUICK
@given(config=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), anything, max_size=14))
def test_a_config_of_nothing_but_odd_values(config: dict[str, Any]) -> None:
    model = _read(config, "odd")
    if model is not None:
        _is_an_answer(model)


def _read(config: Mapping[str, Any], name: str) -> ModelArchitecture | None:
    try:
        return from_config(config, name)
    except UserError as error:
        message = str(error).replace(name, "")
    assert "\n" not in message  # one line
    return None


def _is_an_answer(model: ModelArchitecture) -> None:
    try:
        prediction = predict(engine(max_model_len=64), ALONE, card(), model)
    except UserError:
        return
    assert isinstance(prediction, Prediction)
    assert (prediction.kv_cache_tokens is None) == (prediction.verdict is MemoryVerdict.NOT_MODELLED)
    assert prediction.reason
    json.dumps(prediction.as_dict())


@QUICK
@given(row=st.dictionaries(
    st.sampled_from(["id", "source", "vllm_version", "engine", "model", "arch", "gpu", "total_gib", "free_gib", "gpu_memory_utilization", "tensor_parallel_size",
                     "dtype", "quantization", "weights_format", "kv_cache_dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "enforce_eager",
                     "weights_gib", "non_torch_gib", "activation_peak_gib", "kv_cache_gib", "kv_cache_tokens", "block_size", "outcome", "note", "suspect",
                     "pipeline_parallel_size", "speculative_config", "a_field_of_tomorrow"]),
    anything, max_size=12))
def test_a_row_with_odd_values_does_not_lose_the_others(row: dict[str, Any]) -> None:
    good = load_rows(DATA / "cases.jsonl")[0]
    archs = json.loads((DATA / "archs.json").read_text())
    result = evaluate([{**good, **row, "id": "odd"}, good, {"id": "bare", **row}], archs)
    assert [case["id"] for case in result["cases"]] == ["odd", good["id"], result["cases"][2]["id"]]
    assert result["cases"][1]["verdict_right"] is True
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("nonsense", [{"kv_cache_tokens": math.inf}, {"kv_cache_tokens": math.nan}, {"weights_gib": [-math.inf]}])
def test_a_row_whose_numbers_are_none_is_said_to_be_unreadable(nonsense: dict[str, Any]) -> None:
    good = load_rows(DATA / "cases.jsonl")[0]
    result = evaluate([good | nonsense], json.loads((DATA / "archs.json").read_text()))
    assert "the row cannot be read" in result["cases"][0]["predicted"]["reason"]
    json.dumps(result, allow_nan=False)


@QUICK
@given(archs=st.dictionaries(st.sampled_from(["q", "r"]), anything, max_size=2))
def test_a_table_of_odd_architectures(archs: dict[str, Any]) -> None:
    row = {"id": "a", "model": "Qwen3-8B", "arch": "q", "gpu": "L4", "outcome": "ok", "kv_cache_tokens": 10000, "gpu_memory_utilization": 0.9}
    json.dumps(evaluate([row], archs), allow_nan=False)


def test_an_architecture_that_nobody_knows_is_named() -> None:
    row = {"id": "a", "model": "New-9B", "arch": "new", "gpu": "L4", "outcome": "ok", "kv_cache_tokens": 10000}
    table = {"new": {"num_hidden_layers": 40, "hidden_size": 4096, "num_key_value_heads": 8, "head_dim": 128, "params_b": 9, "attention": "gated delta net 3:1"}}
    prediction = evaluate([row], table)["cases"][0]["predicted"]
    assert prediction["verdict"] == "not_modelled"
    assert "New-9B" in prediction["reason"]


@QUICK
@given(text=st.text(max_size=40), config=anything)
def test_names_and_formats_of_anything(text: str, config: Any) -> None:
    find_card(text)
    named_format(text)
    read_start_log(text)
    if isinstance(config, dict):
        weight_format(config)


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", "many"), ("hidden_size", -4096), ("num_key_value_heads", True), ("vocab_size", -1),
                                            ("head_dim", 64.5), ("intermediate_size", True)])
def test_a_value_that_is_no_size_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key}=.*not a whole number above 0"):
        llama_8b(**{key: value})


@pytest.mark.parametrize("change", [{"kv_lora_rank": 1.7e150}, {"kv_lora_rank": 512, "q_lora_rank": 1e100}, {"params_b": 1e200}, {"params_b": -3},
                                    {"vision_config": {"depth": 1e100, "hidden_size": 64}}])
def test_a_size_that_no_model_has_is_one_clear_line(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be above"):
        llama_8b(**change)
