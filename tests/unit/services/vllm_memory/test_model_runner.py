"""Which model runner executes a model, by the steps of `VllmConfig.use_v2_model_runner` in vLLM's releases, and what that means for memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.services.memory_values import ALONE
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory, graphs_after
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.model_runner import ModelRunner
from tune_gpu.services.vllm.memory.parts import COMPILE_PEAK, activation
from tune_gpu.services.vllm.memory.predict import predict

GIB = 2**30
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}


def typed(kind: str, **change: object) -> ModelArchitecture:
    return replace(llama_8b(model_type=kind), kind=kind, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "since"), [
    (typed("qwen3"), "0.22.0"), (llama_8b(), "0.23.0"), (typed("mistral"), "0.23.0"), (llama_8b(quantization_config=AWQ), "0.24.0"),
    (typed("qwen2_moe", experts_per_token=4), "0.24.0"), (typed("qwen2"), "0.25.0"), (typed("llama", multimodal=True), "0.25.0"),
    (typed("deepseek_v4", experts_per_token=8), "0.28.0"), (typed("qwen3_moe", experts_per_token=8), "0.29.0"), (typed("qwen3", pooling=True), "0.29.0"),
], ids=str)
def test_the_release_that_gave_a_model_the_second_runner(model: ModelArchitecture, since: str) -> None:
    releases = [f"0.{minor}.0" for minor in range(20, 33)]
    first = next(release for release in releases if ModelRunner.of(EngineRules.of(release), model).second)
    assert first == since


def test_a_name_stands_for_a_type_that_is_not_known() -> None:
    qwen = from_config(known_model("Qwen3-8B") or {}, "Qwen/Qwen3-8B")
    later = from_config(known_model("Qwen2.5-7B") or {}, "Qwen/Qwen2.5-7B")
    rules = EngineRules.of("0.22.1")
    assert ModelRunner.of(rules, qwen).second
    assert not ModelRunner.of(rules, later).second


def test_recurrent_layers_came_last_to_the_second_runner() -> None:
    hybrid = from_config({"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}, "vision_config": {}}, "Qwen3.5-9B")
    assert hybrid.states is not None
    assert [ModelRunner.of(EngineRules.of(version), hybrid).second for version in ("0.25.0", "0.28.0", "0.29.0")] == [False, False, True]


def test_vllms_variable_chooses_the_runner() -> None:
    assert ModelRunner.of(EngineRules.of("0.20.0"), llama_8b(), {"VLLM_USE_V2_MODEL_RUNNER": "1"}).second
    assert not ModelRunner.of(EngineRules.of("0.32.0"), llama_8b(), {"VLLM_USE_V2_MODEL_RUNNER": "0"}).second
    assert not ModelRunner.of(EngineRules.of("0.32.0", cpu=True), llama_8b()).second


@pytest.mark.parametrize(("version", "env", "estimated"), [
    ("0.19.1", {}, False), ("0.20.0", {}, True), ("0.24.0", {}, False), ("0.28.0", {}, False), ("0.29.0", {}, True),
    ("0.19.1", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "1"}, True), ("0.32.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"}, False),
    ("0.17.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "1"}, False),
])
def test_graphs_are_deducted_where_the_runner_estimates_them(version: str, env: dict[str, str], estimated: bool) -> None:
    """The second runner, which serves Llama since 0.23, answered 0 until 0.28 (`profile_cudagraph_memory`)."""
    budget = estimate_memory(engine(env=env), card(), llama_8b(), version=version)
    assert bool(budget.graphs) is estimated
    assert bool(graphs_after(budget, engine(env=env), llama_8b())) is not estimated


def test_the_second_runner_profiles_no_filtering_of_logits() -> None:
    model = llama_8b()
    before, after = EngineRules.of("0.22.1"), EngineRules.of("0.28.0")
    assert activation(model, after, 2048, 256, 2, 1).value < 0.6 * activation(model, before, 2048, 256, 2, 1).value


def test_counters_for_penalties_are_deducted_since_0_27() -> None:
    def deducted(version: str, sequences: int) -> float:
        found = estimate_memory(engine(max_num_seqs=sequences, enforce_eager=True), card(), llama_8b(), version=version)
        return float(found.non_torch)

    more = deducted("0.27.1", 256) - deducted("0.27.1", 64)
    assert more == pytest.approx(192 * 128256 * 4.125)
    assert deducted("0.26.0", 256) == deducted("0.26.0", 64)


def test_a_first_compilation_is_a_floor_of_the_activation() -> None:
    """A server with few sequences deducts the compiler's peak (vllm#54122); without compilation it deducts its own small activation."""
    compiled = estimate_memory(engine(max_num_seqs=4), card(), llama_8b(), version="0.28.0")
    eager = estimate_memory(engine(max_num_seqs=4, enforce_eager=True), card(), llama_8b(), version="0.28.0")
    old = estimate_memory(engine(max_num_seqs=4), card(), llama_8b(), version="0.11.0")
    assert compiled.activation == COMPILE_PEAK.value
    assert eager.activation < 0.4 * GIB
    assert old.activation == pytest.approx(eager.activation, rel=0.3)


@pytest.mark.parametrize(("share", "kv_gib"), [(0.9, 14.54), (0.875, 12.17)])
def test_the_peak_of_a_logged_start_with_1024_sequences(share: float, kv_gib: float) -> None:
    """Llama 3.1 70B in 8 bits on an RTX PRO 6000, vLLM 0.23: 14 bytes for each logit, in the first runner because it is quantised."""
    model = from_config({**(known_model("Llama-3.1-70B") or {}), "quantization_config": {"quant_method": "fp8"}}, "Llama-3.1-70B")
    found = predict(engine(share, max_model_len=16384), ALONE, card(94.97, name="RTX PRO 6000 Blackwell"), model, version="0.23.0")
    assert found.parts_mib["kv"] / 1024 == pytest.approx(kv_gib, abs=0.2)
