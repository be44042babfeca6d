"""What a start teaches, how it is kept, and that every other share follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import card, engine, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.memory_values import ALONE, DeviceMemory, MemoryVerdict
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.learning import learn_from_start, read_start_log
from tune_gpu.services.vllm.memory.predict import predict

MODEL = llama_8b()
V1_LOG = """INFO [gpu_model_runner.py:1114] Model loading took 14.9889 GiB and 3.1 seconds
INFO [gpu_worker.py:276] Available KV cache memory: 19.28 GiB
INFO [kv_cache_utils.py:716] GPU KV cache size: 157,936 tokens"""
V0_LOG = """INFO worker.py:267] the current vLLM instance can use total_gpu_memory (23.58GiB) x gpu_memory_utilization (0.90) = 21.22GiB
INFO worker.py:267] model weights take 14.99GiB; non_torch_memory takes 0.35GiB; PyTorch activation peak memory takes 2.07GiB; \
the rest of the memory reserved for KV Cache is 3.81GiB."""
CPU_LOG = ("(Worker pid=1) INFO [cpu_worker.py:260] Auto set (0.48/10.46) GiB for KV cache on node 0, with 1.26 GiB requested memory for the "
           "worker. 0.78 GiB memory was consumed by non-kv usages.")


def test_logs_of_each_engine() -> None:
    assert read_start_log(V1_LOG).weights_mib == pytest.approx(14.9889 * 1024)
    assert read_start_log(V1_LOG).kv_mib == pytest.approx(19.28 * 1024)
    old = read_start_log(V0_LOG)
    assert (old.weights_mib, old.kv_mib, old.total_mib) == pytest.approx((14.99 * 1024, 3.81 * 1024, 23.58 * 1024))
    cpu = read_start_log(CPU_LOG)
    assert cpu.weights_mib is None
    assert (cpu.kv_mib, cpu.total_mib, cpu.consumed_mib) == pytest.approx((0.48 * 1024, 10.46 * 1024, 0.78 * 1024))
    assert read_start_log("nothing of that") == replace(cpu, kv_mib=None, total_mib=None, consumed_mib=None)


def test_a_logged_start_is_predicted_back_exactly() -> None:
    """A100 40GB, 0.15.1, context 131072, eager: 157936 tokens at 0.9."""
    settings, device = engine(0.9, max_model_len=131072, enforce_eager=True), card(39.39, name="A100 40GB")
    learned = learn_from_start(settings, device, MODEL, V1_LOG, num_gpu_blocks=9871, block_size=16, vllm_version="0.15.1")
    assert learned is not None
    prediction = predict(settings, ALONE, device, MODEL, learned)
    assert prediction.calibrated
    assert prediction.kv_cache_tokens is not None
    assert prediction.kv_cache_tokens.value == 157936
    assert prediction.parts_mib["weights"] == pytest.approx(14.9889 * 1024, abs=0.1)
    more = predict(replace(settings, gpu_memory_utilization=0.95), ALONE, device, MODEL, learned)
    assert more.kv_cache_tokens is not None
    assert more.kv_cache_tokens.value == pytest.approx(157936 + 0.05 * 39.39 * 2**30 / (128 * 1024), abs=16)
    assert more.uncertainty_mib < 0.1 * predict(settings, ALONE, device, MODEL, version="0.15.1").uncertainty_mib


def test_two_data_parallel_engines_teach_what_one_of_them_teaches() -> None:
    """vLLM 0.32, `core_client.py`: "Sum num_gpu_blocks from all engines in DP case"."""
    settings, device = engine(0.9, max_model_len=131072, enforce_eager=True), card(39.39, name="A100 40GB")
    alone = learn_from_start(settings, device, MODEL, V1_LOG, num_gpu_blocks=9871, block_size=16, vllm_version="0.15.1")
    both = learn_from_start(replace(settings, extra_args={"data-parallel-size": 2}), device, MODEL, f"{V1_LOG}\n{V1_LOG}", num_gpu_blocks=2 * 9871, block_size=16,
                            vllm_version="0.15.1")
    assert both == alone


@given(share=st.floats(0.5, 0.97), measured=st.floats(0.6, 0.95))
def test_every_other_share_is_the_measurement_plus_arithmetic(share: float, measured: float) -> None:
    """An engine whose overhead is nothing like the model's: after one start its KV cache is known to a block."""
    device, overhead_mib, block = card(79.15), 3333.3, 16 * 128 / 1024

    def kv_blocks(at: float) -> int:
        return int((at * device.total_mib - 15350 - overhead_mib) // block)

    settings = engine(measured)
    learned = learn_from_start(settings, device, MODEL, "Model loading took 14.9902 GiB", num_gpu_blocks=kv_blocks(measured), block_size=16,
                               vllm_version="0.11.0")
    assert learned is not None
    prediction = predict(replace(settings, gpu_memory_utilization=share), ALONE, device, MODEL, learned)
    assert prediction.kv_cache_tokens is not None
    assert abs(prediction.kv_cache_tokens.value / 16 - kv_blocks(share)) <= 2


def test_other_flags_move_the_measured_overhead_by_what_the_model_says() -> None:
    device, settings = card(79.15), engine(0.9, max_num_seqs=256)
    learned = learn_from_start(settings, device, MODEL, V1_LOG.replace("19.28", "54.00"), num_gpu_blocks=None, block_size=None, vllm_version="0.10.0")
    assert learned is not None
    same, more = (predict(replace(settings, max_num_seqs=count), ALONE, device, MODEL, learned) for count in (256, 1024))
    blind_same, blind_more = (predict(replace(settings, max_num_seqs=count), ALONE, device, MODEL, version="0.10.0") for count in (256, 1024))
    assert same.parts_mib["kv"] - more.parts_mib["kv"] == pytest.approx(blind_same.parts_mib["kv"] - blind_more.parts_mib["kv"], abs=1.0)
    assert more.uncertainty_mib > 5 * same.uncertainty_mib


def test_a_cache_larger_than_its_blocks_gives_the_bytes_of_a_token() -> None:
    settings = engine(0.9)
    learned = learn_from_start(settings, card(79.15), MODEL, V1_LOG.replace("19.28", "53.00"), num_gpu_blocks=20000, block_size=16, vllm_version="0.11.0")
    assert learned is not None
    assert learned.token_bytes == pytest.approx(53.0 * 2**30 / 320000)
    prediction = predict(settings, ALONE, card(79.15), MODEL, learned)
    assert prediction.kv_cache_tokens is not None
    assert prediction.kv_cache_tokens.value == pytest.approx(320000, rel=0.001)


def test_the_cpu_rule() -> None:
    """A logged start of vLLM 0.32 on the CPU: 0.12 of 10971348 KiB, 1964 blocks of 128 tokens."""
    from tune_gpu.services.vllm.demo_model import CONFIG
    from tune_gpu.services.vllm.memory.architecture import from_config

    model, node = from_config(CONFIG, "demo-llm"), DeviceMemory("cpu", "cpu", 10971348 / 1024)
    settings = engine(0.12, max_model_len=2048, max_num_seqs=8, enforce_eager=True)
    blind = predict(settings, ALONE, node, model)
    assert blind.kv_cache_tokens is not None
    assert blind.kv_cache_tokens.value == pytest.approx(251392, rel=0.05)
    assert blind.parts_mib["activation"] == 0
    warm = predict(settings, ALONE, node, model, warm=True)
    assert warm.parts_mib["kv"] - blind.parts_mib["kv"] == pytest.approx(130)
    learned = learn_from_start(settings, node, model, CPU_LOG, num_gpu_blocks=1964, block_size=128, vllm_version="0.32.0")
    assert learned is not None
    prediction = predict(settings, ALONE, node, model, learned)
    assert prediction.kv_cache_tokens is not None
    assert prediction.kv_cache_tokens.value == 251392
    assert prediction.max_concurrency == pytest.approx(122.75)
    # 0.78 GiB of process: 0.08 of 10.46 GiB holds it, 0.07 does not
    assert prediction.least_share == 0.08
    assert predict(replace(settings, gpu_memory_utilization=0.07), ALONE, node, model, learned).verdict is MemoryVerdict.INFEASIBLE
    grown = learn_from_start(settings, replace(node, total_mib=9000.0), model, CPU_LOG, num_gpu_blocks=1964, block_size=128, vllm_version="0.32.0")
    assert grown is not None
    assert grown.overhead_mib == pytest.approx(learned.overhead_mib, abs=1.0)  # the total that vLLM itself names is the one that counts


def test_nothing_to_learn() -> None:
    assert learn_from_start(engine(), card(), MODEL, "no numbers", num_gpu_blocks=None, block_size=None, vllm_version="0.11.0") is None
    with pytest.raises(ValueError, match="cannot have taken"):
        Calibration(-1.0, 5.0)


def test_store_keeps_what_it_learns(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calibration.json"
    measured = Calibration(100.0, 50.0, 2048.0, "0.32.0", {"max_model_len": 8192})
    store = CalibrationStore(path)
    assert store.get(engine(), "0.32.0", "L4") is None
    assert store.learn(engine(), "L4", measured) == measured
    again = CalibrationStore(path)
    assert again.get(engine(0.3, max_model_len=512), "0.32.0", "L4") == measured  # neither the share nor the context is part of the key
    for other in (engine(quantization="fp8"), engine(dtype="float16"), engine(tensor_parallel_size=2), engine(kv_cache_dtype="fp8")):
        assert again.get(other, "0.32.0", "L4") is None
    assert again.get(engine(), "0.31.0", "L4") is None
    assert again.get(engine(), "0.32.0", "T4") is None
    assert again.get(engine(), "0.32.0", "L4", "warm") is None
    assert len(again) == 1


def test_starts_alike_are_averaged_and_others_replace(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path / "c.json")
    first = Calibration(100.0, 50.0, 2048.0, "0.32.0", {"max_num_seqs": 8})
    store.learn(engine(), "L4", first)
    assert store.learn(engine(), "L4", replace(first, overhead_mib=60.0)).overhead_mib == 55.0
    third = store.learn(engine(), "L4", replace(first, overhead_mib=58.0))
    assert (third.overhead_mib, third.starts) == (56.0, 3)
    assert store.learn(engine(), "L4", replace(first, overhead_mib=90.0, flags={"max_num_seqs": 16})).overhead_mib == 90.0


def test_two_runs_do_not_forget_each_other_s_measurements(tmp_path: Path) -> None:
    one, two = CalibrationStore(tmp_path / "c.json"), CalibrationStore(tmp_path / "c.json")
    one.learn(engine(), "L4", Calibration(1.0, 1.0, None, "0.32.0"))
    two.learn(engine(), "T4", Calibration(2.0, 2.0, None, "0.32.0"))
    assert len(CalibrationStore(tmp_path / "c.json")) == 2


def test_a_broken_store_is_one_clear_line_and_unknown_fields_are_none(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    CalibrationStore(path).learn(engine(), "L4", Calibration(1.0, 1.0, None, "0.32.0"))
    content = json.loads(path.read_text())
    next(iter(content["measurements"].values()))["of_a_later_version"] = 1
    path.write_text(json.dumps(content))
    assert len(CalibrationStore(path)) == 1
    path.write_text("[]")
    with pytest.raises(UserError, match="not a file of calibrations"):
        CalibrationStore(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        CalibrationStore(tmp_path / "file" / "c.json").learn(engine(), "L4", Calibration(1.0, 1.0, None, "0.32.0"))


def test_what_was_learnt_under_other_flags_is_not_believed_to_four_mib(tmp_path: Path) -> None:
    """A flag without a setting of its own may take GiBs: the largest image that is allowed, the graphs that are captured, the attention backend."""
    store = CalibrationStore(tmp_path / "c.json")
    images = {"limit_mm_per_prompt": {"image": 8}, "hf_token": "hf_sentinel"}
    store.learn(engine(extra_args=images, env={"VLLM_ATTENTION_BACKEND": "FLASHINFER"}), "L4", Calibration(100.0, 5000.0, None, "0.32.0"))
    for other in (engine(), engine(extra_args=images), engine(env={"VLLM_ATTENTION_BACKEND": "FLASHINFER"}), engine(extra_args={"limit_mm_per_prompt": {"image": 0}})):
        assert store.get(other, "0.32.0", "L4") is None
    same = {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/tg-mps-1", "VLLM_ATTENTION_BACKEND": "FLASHINFER"}
    assert store.get(engine(extra_args=dict(reversed(images.items())), env=same), "0.32.0", "L4") is not None
    assert "hf_sentinel" not in (tmp_path / "c.json").read_text()


def test_a_null_flag_counts_as_absent(tmp_path: Path) -> None:
    """A plan has it for a knob that is not active."""
    store = CalibrationStore(tmp_path / "c.json")
    store.learn(engine(), "L4", Calibration(100.0, 5000.0, None, "0.32.0"))
    assert store.get(engine(extra_args={"max_num_partial_prefills": None}), "0.32.0", "L4") is not None
