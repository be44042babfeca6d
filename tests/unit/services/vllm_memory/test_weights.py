"""Weights by format, checked against sizes that vLLM printed for real checkpoints, and the headers of checkpoints."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import LLAMA_8B_CONFIG, llama_8b
from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.memory.architecture import from_config, read_architecture
from tune_gpu.services.vllm.memory.checkpoint import checkpoint_bytes, gguf_bytes
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.parts import weights
from tune_gpu.services.vllm.memory.weight_formats import flag_format, named_format, weight_format

GIB = 2**30


@pytest.mark.parametrize(("flag", "gib"), [(None, 14.99), ("fp8", 8.49), ("bnb-4bit", 5.35), ("awq_marlin", 5.34), ("gptq", 5.35), ("int8", 8.49)])
def test_llama_8b_in_each_format(flag: str | None, gib: float) -> None:
    assert weights(llama_8b(), flag_format(flag), 2, 1).value / GIB == pytest.approx(gib, rel=0.015)


def test_cards_share_them() -> None:
    whole, half = weights(llama_8b(), None, 2, 1).value, weights(llama_8b(), None, 2, 2).value
    assert half == pytest.approx(whole / 2, rel=0.005)


@pytest.mark.parametrize(("config", "bits"), [
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.156), ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8.0),
    ({"quant_method": "fp8"}, 8.0), ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.127),
    ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, 8.0),
    ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}, 4.156),
    ({"quant_method": "mxfp4"}, 4.25), ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8.0), ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
    ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, 4.5),
])
def test_format_of_a_checkpoint(config: dict[str, Any], bits: float) -> None:
    found = weight_format(config)
    assert found is not None
    assert found.bits == pytest.approx(bits, abs=0.001)


@pytest.mark.parametrize(("name", "found"), [
    ("Llama-3.2-3B-Instruct-Q8_0.gguf", "gguf-q8"), ("Qwen2.5-7B-Instruct-Q4_K_M", "gguf-q4"), ("gguf-q6", "gguf-q6"),
    ("Qwen2.5-14B-Instruct-GPTQ-Int4", "gptq"), ("Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "awq"), ("EXAONE-4.0-32B-FP8", "fp8"),
    ("Llama-3.1-70B-Instruct-quantized.w8a8", "int8"), ("Llama-3.1-8B-unsloth-bnb-4bit", "bnb-4bit"), ("Qwen2.5-7B-Instruct", None), (None, None),
])
def test_format_in_a_name(name: str | None, found: str | None) -> None:
    form = named_format(name)
    assert (form.name if form else None) == found


def test_unknown_quantisation_names_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"vllm\.quantization=zip: not a known quantisation\. Set one of awq"):
        flag_format("zip")


def test_the_checkpoint_s_own_size_is_believed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B_CONFIG))
    assert checkpoint_bytes(tmp_path) is None
    header = json.dumps({"__metadata__": {}, "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
                         "b": {"dtype": "BF16", "shape": [8], "data_offsets": [4, 20]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(20))
    assert checkpoint_bytes(tmp_path) == 20
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16_060_522_496}, "weight_map": {}}))
    model = read_architecture(tmp_path)
    assert model.weights_bytes == 16_060_522_496
    assert weights(model, None, 2, 1).value / GIB == pytest.approx(14.99, rel=0.002)


def gguf(path: Path, tensors: list[tuple[list[int], int]]) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    blob = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 3)
    blob += text("general.name") + struct.pack("<I", 8) + text("toy")
    blob += text("block_count") + struct.pack("<II", 4, 2)
    blob += text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    for number, (shape, kind) in enumerate(tensors):
        blob += text(f"t{number}") + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", size) for size in shape) + struct.pack("<IQ", kind, 0)
    path.write_bytes(blob)
    return path


def test_gguf_header(tmp_path: Path) -> None:
    # Q4_K: 144 bytes for 256 weights; F32; Q8_0: 34 for 32
    path = gguf(tmp_path / "toy.gguf", [([256, 4], 12), ([16], 0), ([32, 2], 8)])
    assert gguf_bytes(path) == 4 * 144 + 64 + 68
    (tmp_path / "other.gguf").write_bytes(b"nonsense")
    assert gguf_bytes(tmp_path / "other.gguf") is None
    path.write_bytes(path.read_bytes()[:-16])
    assert gguf_bytes(path) is None


def test_a_mixture_that_llama_cpp_made_by_its_name() -> None:
    """A posted start of Llama 3.2 3B in Q8_0 took 3.2637 GiB, of Qwen 7B in Q4_K_M the file has 4.36 GiB."""
    three, seven = known_model("Llama-3.2-3B"), known_model("Qwen2.5-7B")
    assert three is not None
    assert seven is not None
    assert weights(from_config(three, "m"), named_format("Q8_0"), 2, 1).value / 2**30 == pytest.approx(3.2637, rel=0.02)
    assert weights(from_config(seven, "m"), named_format("Q4_K_M"), 2, 1).value / 2**30 == pytest.approx(4.36, rel=0.03)


@pytest.mark.parametrize(("left_out", "kept"), [
    ({"ignore": ["lm_head", "model.language_model.layers.*.self_attn*"]}, True), ({"modules_to_not_convert": ["model.layers.*.self_attn"]}, True),
    ({"exclude_modules": [f"model.layers.{layer}.self_attn*" for layer in range(32)]}, True), ({"ignore": ["re:.*self_attn.*"]}, True),
    ({"ignore": ["lm_head", "model.layers.0.self_attn.q_proj"]}, False), ({"ignore": ["model.visual.blocks.*.attn"]}, False), ({}, False),
    ({"modules_to_not_convert": None}, False), ({"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["model.layers.*.self_attn*"]}}, True),
])
def test_a_checkpoint_may_leave_attention_in_16_bits(left_out: dict[str, object], kept: bool) -> None:
    stored = weight_format({"quant_method": "modelopt", "quant_algo": "NVFP4", **left_out}, layers=32)
    assert stored is not None
    assert stored.attention_kept is kept
    model = llama_8b(quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4", **left_out})
    plain = llama_8b(quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4"})
    attention = 32 * 2 * 4096 * 128 * (32 + 8)
    more = weights(model, None, 2, 1).value - weights(plain, None, 2, 1).value
    assert more == pytest.approx(attention * (16 - 4.5) / 8 if kept else 0.0)
