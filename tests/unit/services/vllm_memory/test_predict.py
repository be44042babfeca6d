"""One candidate: verdicts, reasons in numbers, bad input; and what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.faster_whisper.memory import whisper_mib
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.memory_values import ALONE, Beside, DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many
from tune_gpu.services.vllm.settings import VllmSettings

MODEL = llama_8b()


def ask(settings: VllmSettings, device: DeviceMemory | None = None, whisper: WhisperSettings | None = None) -> Prediction:
    beside = ALONE
    if whisper is not None:
        mean_mib, sigma_mib = whisper_mib(whisper, (device or card()).kind)
        beside = Beside({"whisper": mean_mib}, sigma_mib)
    return predict(settings, beside, device or card(), MODEL, version="0.10")


def test_a_logged_start_part_by_part() -> None:
    """RTX 3090, vLLM 0.6.4, context 20000: 14.99 GiB of weights, 2.07 of activation, 31232 tokens."""
    prediction = predict(engine(0.9, max_model_len=20000), ALONE, card(), MODEL, version="0.6.4")
    assert prediction.verdict is MemoryVerdict.FITS
    assert prediction.kv_cache_tokens is not None
    assert prediction.parts_mib["weights"] == pytest.approx(14.99 * 1024, rel=0.005)
    assert prediction.parts_mib["activation"] == pytest.approx(2.07 * 1024, rel=0.01)
    assert prediction.kv_cache_tokens.low <= 31232 <= prediction.kv_cache_tokens.high
    assert prediction.max_concurrency == pytest.approx(prediction.kv_cache_tokens.value / 20000, rel=0.01)


def test_too_small_for_the_weights_names_the_least_share() -> None:
    prediction = ask(engine(0.5))
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    assert prediction.likely is False
    assert "vLLM's share of 12073 MiB cannot hold 15348 MiB of weights; 0.64 is the least that can" in prediction.reason
    assert prediction.least_share is not None
    assert f"with a context of 8192 and what else it needs {prediction.least_share:.2f}" in prediction.reason
    assert prediction.shortfall_mib > 0


def test_a_context_too_long_names_the_one_that_would_fit() -> None:
    prediction = ask(engine(0.9, max_model_len=131072))
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    assert prediction.max_context is not None
    assert f"max_model_len {prediction.max_context}" in prediction.reason
    assert ask(engine(0.9, max_model_len=prediction.max_context)).likely
    assert not ask(engine(0.9, max_model_len=prediction.max_context + 32)).likely


def test_neighbours_and_whisper_stand_in_the_way_at_the_start() -> None:
    assert ask(engine(0.9)).verdict is MemoryVerdict.FITS
    beside = ask(engine(0.9), card(used_mib=6000))
    assert beside.verdict is MemoryVerdict.INFEASIBLE
    assert "neighbours hold 6000 MiB" in beside.reason
    assert "0.73 is the most that is free" in beside.reason
    small, large = (ask(engine(0.9, enforce_eager=True), whisper=WhisperSettings(model=size)) for size in ("tiny", "large-v3"))
    assert small.verdict is MemoryVerdict.FITS
    assert large.verdict is MemoryVerdict.INFEASIBLE
    assert "whisper" in large.reason
    # What vLLM gets does not depend on the others, only whether it starts does.
    assert small.kv_cache_tokens == large.kv_cache_tokens


def test_flags_that_contradict_each_other() -> None:
    prediction = ask(engine(max_num_seqs=512, max_num_batched_tokens=256))
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    assert "cannot hold 512 sequences" in prediction.reason
    prediction = ask(engine(max_num_batched_tokens=1024, enable_chunked_prefill=False))
    assert "without chunked prefill" in prediction.reason
    assert "divided between 3 cards" in ask(engine(tensor_parallel_size=3)).reason


@pytest.mark.parametrize("extra", [{"pipeline_parallel_size": 2}, {"speculative_config": {"method": "ngram"}}, {"cpu-offload-gb": 4}, {"kv_cache_memory_bytes": 2**30},
                                   {"num-gpu-blocks-override": 100}, {"decode_context_parallel_size": 4}, {"offload_group_size": 8}, {"spec-model": "a-drafter"},
                                   {"spec-method": "ngram"}, {"hf_overrides": {"num_hidden_layers": 4}}, {"speculative-config.num_speculative_tokens": 5}])
def test_flags_that_are_not_modelled_give_no_number(extra: dict[str, object]) -> None:
    prediction = ask(engine(extra_args=extra))
    assert prediction.verdict is MemoryVerdict.NOT_MODELLED
    assert prediction.kv_cache_tokens is None
    assert prediction.likely is None
    with pytest.raises(ValueError, match="has no number"):
        replace(prediction, kv_cache_tokens=ask(engine()).kv_cache_tokens)


def test_data_parallel_engines_are_modelled_unless_they_divide_experts() -> None:
    """vLLM 0.32, `v1/engine/core.py`: "Non-MoE DP ranks are completely independent"; `FusedMoEParallelConfig` divides experts by TP x PCP x DP."""
    two = {"data-parallel-size": 2}
    assert ask(engine(extra_args=two)).kv_cache_tokens == ask(engine()).kv_cache_tokens
    mixture = llama_8b(model_type="mixtral", num_local_experts=8, num_experts_per_tok=2)
    assert predict(engine(), ALONE, card(), mixture).verdict is MemoryVerdict.INFEASIBLE
    prediction = predict(engine(extra_args=two), ALONE, card(), mixture)
    assert prediction.verdict is MemoryVerdict.NOT_MODELLED
    assert "data_parallel_size=2" in prediction.reason


def test_a_variable_that_sets_the_cache_gives_no_number() -> None:
    assert "VLLM_CPU_KVCACHE_SPACE" in ask(engine(env={"VLLM_CPU_KVCACHE_SPACE": "4"})).reason


def test_default_batches_follow_the_sequences_and_the_context() -> None:
    """vLLM 0.32, `engine/arg_utils.py`: a default batch is no larger than max_num_seqs x context, default sequences no more than the batch."""
    one, many = (predict(engine(max_model_len=256, max_num_seqs=count, enforce_eager=True), ALONE, card(), MODEL, version="0.32.0") for count in (1, 64))
    assert one.parts_mib["activation"] < 0.2 * many.parts_mib["activation"]
    narrow = predict(engine(max_num_batched_tokens=128), ALONE, card(), MODEL, version="0.32.0")
    assert narrow.verdict is MemoryVerdict.FITS  # 256 default sequences become 128


def test_a_hybrid_is_refused_by_name() -> None:
    prediction = predict(engine(), ALONE, card(), llama_8b(model_type="rwkv7"))
    assert prediction.verdict is MemoryVerdict.NOT_MODELLED
    assert "recurrent" in prediction.reason


@pytest.mark.parametrize(("change", "cards", "verdict"), [
    ({"num_hidden_layers": 32}, 1, MemoryVerdict.NOT_MODELLED),  # 8 billion parameters
    ({"num_hidden_layers": 320}, 1, MemoryVerdict.INFEASIBLE), ({"num_hidden_layers": 320}, 8, MemoryVerdict.NOT_MODELLED),
    ({"num_hidden_layers": 160, "quantization_config": {"quant_method": "own"}}, 1, MemoryVerdict.INFEASIBLE),
    ({"num_hidden_layers": 160, "quantization_config": {"quant_method": "awq", "bits": 4}}, 1, MemoryVerdict.NOT_MODELLED),
])
def test_what_is_not_modelled_is_refused_only_for_its_weights(change: dict[str, Any], cards: int, verdict: MemoryVerdict) -> None:
    model = llama_8b(cross_attention_layers=[3, 8], **change)
    prediction = predict(engine(tensor_parallel_size=cards), ALONE, card(), model)
    assert prediction.verdict is verdict
    assert "not modelled" in prediction.reason
    many = predict_many(engine(tensor_parallel_size=cards), BesideMany(), {"max_model_len": [1024, 2048]}, card(), model)
    assert [many.verdict_of(index) for index in range(2)] == [verdict] * 2
    assert predict(engine(tensor_parallel_size=cards, extra_args={"cpu_offload_gb": 100}), ALONE, card(), model).verdict is MemoryVerdict.NOT_MODELLED


@pytest.mark.parametrize(("settings", "message"), [
    (engine(0.0), r"vllm\.gpu_memory_utilization=0: out of range. Set a number above 0 and at most 1"),
    (engine(1.01), r"vllm\.gpu_memory_utilization=1\.01: out of range. Set a number above 0 and at most 1"),
    (engine(-0.1), r"above 0"),
    (engine(max_model_len=200000), r"vllm\.max_model_len=200000: out of range. Set a number above 0 and at most 131072 \(the model's own context\)"),
    (engine(max_num_seqs=0), r"vllm\.max_num_seqs=0"),
    (engine(block_size=0), r"vllm\.block_size=0: out of range. Set a number above 0"),
    (engine(tensor_parallel_size=0), r"vllm\.tensor_parallel_size=0"),
    (engine("half"), r"vllm\.gpu_memory_utilization=half: not a number. Set a number above 0 and at most 1"),
    (engine(True), r"vllm\.gpu_memory_utilization=True: not a number. Set a number"),
    (engine(max_num_seqs="many"), r"vllm\.max_num_seqs=many: not a number. Set a number above 0"),
    (engine(dtype="int3"), r"vllm\.dtype=int3: not allowed. Set one of auto, half"),
])
def test_bad_input(settings: VllmSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(settings)


def test_bad_devices() -> None:
    with pytest.raises(UserError, match="Set one of cuda, cpu"):
        DeviceMemory("x", "tpu", 1.0)
    with pytest.raises(UserError, match="total_mib=0"):
        DeviceMemory("x", "cuda", 0.0)
    with pytest.raises(UserError, match="used_mib=5"):
        DeviceMemory("x", "cuda", 4.0, 5.0)


SHARES = st.integers(5, 100).map(lambda percent: percent / 100)
ENGINES = st.builds(
    engine, share=SHARES, max_model_len=st.sampled_from([512, 2048, 8192, 32768]), max_num_seqs=st.sampled_from([None, 1, 16, 256]),
    max_num_batched_tokens=st.sampled_from([None, 512, 2048, 8192]), enforce_eager=st.booleans(),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]), quantization=st.sampled_from([None, "awq", "fp8"]), tensor_parallel_size=st.sampled_from([1, 2, 4]),
)
VERSIONS = st.sampled_from(["0.6.3", "0.8.5", "0.11.0", "0.15.1", "0.24.0", "0.32.0"])


@given(settings=ENGINES, version=VERSIONS, gib=st.floats(6.0, 180.0))
def test_more_share_never_means_fewer_tokens(settings: VllmSettings, version: str, gib: float) -> None:
    device = card(gib, name="some card")
    predictions = [predict(replace(settings, gpu_memory_utilization=share), ALONE, device, MODEL, version=version) for share in (0.3, 0.5, 0.7, 0.9)]
    tokens = [one.kv_cache_tokens.value for one in predictions if one.kv_cache_tokens]
    assert tokens == sorted(tokens)
    assert all(one.kv_cache_tokens and one.kv_cache_tokens.low <= one.kv_cache_tokens.value <= one.kv_cache_tokens.high for one in predictions)


@given(settings=ENGINES, version=VERSIONS, gib=st.floats(6.0, 180.0))
def test_the_least_share_is_the_edge(settings: VllmSettings, version: str, gib: float) -> None:
    device = card(gib, name="some card")
    prediction = predict(settings, ALONE, device, MODEL, version=version)
    if prediction.least_share is None or "batch of" in prediction.reason:
        return
    at = predict(replace(settings, gpu_memory_utilization=prediction.least_share), ALONE, device, MODEL, version=version)
    assert (at.headroom_mib or 0) >= -0.1
    if prediction.least_share > 0.02:
        below = predict(replace(settings, gpu_memory_utilization=prediction.least_share - 0.01), ALONE, device, MODEL, version=version)
        assert (below.headroom_mib or 0) <= 0.1


@given(settings=ENGINES, version=VERSIONS, gib=st.floats(6.0, 180.0))
def test_the_parts_are_the_share(settings: VllmSettings, version: str, gib: float) -> None:
    prediction = predict(settings, ALONE, card(gib, name="some card"), MODEL, version=version)
    if prediction.parts_mib["kv"] > 0:
        inside = sum(prediction.parts_mib[name] for name in ("weights", "activation", "cuda_graphs", "non_torch", "kv"))
        assert inside == pytest.approx(gib * 1024 * settings.gpu_memory_utilization, abs=1.0)
    if prediction.verdict is MemoryVerdict.FITS:
        assert prediction.likely
        assert prediction.shortfall_mib == 0
    if prediction.verdict is MemoryVerdict.INFEASIBLE:
        assert not prediction.likely
