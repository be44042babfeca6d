"""Each part of the memory budget against what real engines printed, and the blocks of the KV cache."""

from __future__ import annotations

import pytest

from tests.support.models import card, engine, llama_8b
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.kv_layout import KvLayout
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.parts import activation, cuda_graphs, non_torch

GIB = 2**30
V0, V1, NOW = EngineRules.of("0.6.4"), EngineRules.of("0.10.0"), EngineRules.of("0.32.0")


@pytest.mark.parametrize(("name", "tokens", "sequences", "gib"), [
    # V0 logs: sampling decides ...
    ("Llama-3.1-8B", 2048, 256, 1.19), ("Qwen2.5-7B", 2048, 256, 1.40), ("Qwen3-8B", 2048, 256, 1.40), ("Llama-3.2-3B", 2048, 192, 0.90),
    # ... or the forward pass, when the batch is a long context
    ("Llama-3.1-8B", 20000, 256, 2.07), ("Llama-3.1-8B", 29000, 256, 2.99), ("Qwen3-4B", 10000, 1, 0.74),
])
def test_activation_peak_of_logged_starts(name: str, tokens: int, sequences: int, gib: float) -> None:
    model = from_config(known_model(name) or {}, name)
    assert activation(model, V0, tokens, sequences, 2, 1).value / GIB == pytest.approx(gib, rel=0.08)


def test_feed_forward_is_divided_between_cards_and_sampling_is_not() -> None:
    model = llama_8b()
    assert activation(model, V0, 32768, 1, 2, 2).value < 0.7 * activation(model, V0, 32768, 1, 2, 1).value
    assert activation(model, V0, 256, 256, 2, 8).value == activation(model, V0, 256, 256, 2, 1).value


def test_later_samplers_do_not_sort() -> None:
    model = llama_8b()
    assert activation(model, NOW, 2048, 256, 2, 1).value < 0.6 * activation(model, V1, 2048, 256, 2, 1).value


def test_graphs_grow_with_sequences_and_layers() -> None:
    model = llama_8b()
    few, many = cuda_graphs(model, NOW, 8, 2, 1).value, cuda_graphs(model, NOW, 256, 2, 1).value
    assert few < 0.4 * many
    assert 0.1 < many / GIB < 1.0
    # Older logs: 1.44 GiB (28 layers) and 3.17 (64) in V1, 0.17 to 0.27 in V0
    assert cuda_graphs(from_config(known_model("Qwen2.5-7B") or {}, "q"), V1, 256, 2, 1).value / GIB == pytest.approx(1.44, rel=0.03)
    assert cuda_graphs(from_config(known_model("Qwen2.5-32B") or {}, "q"), V1, 256, 2, 1).value / GIB == pytest.approx(3.17, rel=0.03)
    assert 0.17 <= cuda_graphs(model, V0, 256, 2, 1).value / GIB <= 0.27


@pytest.mark.parametrize(("name", "version", "sequences", "cards", "gib"), [
    ("Llama-3.1-70B", "0.16.0", 256, 2, 1.22), ("Qwen3-8B", "0.13.0", 256, 1, 0.54), ("Qwen2.5-7B", "0.22.0", 128, 1, 0.37), ("Qwen2.5-0.5B", "0.27.0", 256, 1, 0.37),
])
def test_graphs_of_logged_starts(name: str, version: str, sequences: int, cards: int, gib: float) -> None:
    """What starts of the later V1 printed, estimated or taken."""
    model = from_config(known_model(name) or {}, name)
    assert cuda_graphs(model, EngineRules.of(version), sequences, 2, cards).value / GIB == pytest.approx(gib, rel=0.25)


def test_what_cards_take_between_them() -> None:
    """A quarter of a GiB for each that NVLink links; little over PCIe; a card that shares the host's memory is charged for the process."""
    def gib(card: str, cards: int, total: float = 79.1, shares_host_memory: bool = False) -> float:
        return float(non_torch(EngineRules.of("0.26.0"), cards, card, total, shares_host_memory).value) / GIB

    assert gib("H100 80GB", 1) == pytest.approx(0.1)
    assert gib("H100 80GB", 4) == pytest.approx(1.1)
    assert gib("L40S", 8, 44.4) == pytest.approx(0.2)
    assert gib("GB10", 1, 119.7, True) == pytest.approx(1.8)


def test_v0_until_0_6_5_counts_what_else_is_on_the_card() -> None:
    """CUDA's context, and the neighbours: another engine's 68 GiB left none of a share of 0.2 to a second one (vllm#10533)."""
    def kv_gib(version: str, used_gib: float) -> float:
        return float(estimate_memory(engine(), card(used_mib=used_gib * 1024), llama_8b(), version=version, v1=False).kv) / GIB

    assert kv_gib("0.6.4", 0) == pytest.approx(kv_gib("0.6.6", 0) - 0.25)
    assert kv_gib("0.6.4", 3) == pytest.approx(kv_gib("0.6.4", 0) - 3)
    assert kv_gib("0.6.6", 3) == kv_gib("0.6.6", 0)


@pytest.mark.parametrize(("cards", "kib"), [(1, 128), (2, 64), (8, 16), (16, 16)])
def test_bytes_of_a_token(cards: int, kib: int) -> None:
    """2 x 32 layers x 8 heads x 128 x 2 bytes; heads are divided between cards, and copied where there are more cards than heads."""
    assert KvLayout.of(llama_8b(), V1, 2.0, cards).bytes_per_token == kib * 1024
    assert KvLayout.of(llama_8b(), V1, 1.0, cards).bytes_per_token == kib * 512


def test_latent_attention_is_one_vector_for_all_cards() -> None:
    model = from_config(known_model("DeepSeek-V3") or {}, "DeepSeek-V3")
    assert KvLayout.of(model, V1, 2.0, 8).bytes_per_token == 61 * 576 * 2
    # V0 pads 1152 bytes to 1280: a log of R1 on 8 cards shows 78084 bytes a token
    assert KvLayout.of(model, EngineRules.of("0.7.2"), 2.0, 8).bytes_per_token == pytest.approx(78084, rel=0.001)
    # before, every head's keys and values, padded to 256 numbers
    assert KvLayout.of(model, V0, 2.0, 8).bytes_per_token == 61 * 2 * 16 * 256 * 2


def test_layers_of_two_kinds_are_grouped_and_padded() -> None:
    gemma = from_config(known_model("Gemma-3-1B") or {}, "Gemma-3-1B")
    layout = KvLayout.of(gemma, V1, 2.0, 1)
    assert (layout.full_groups, layout.sliding_groups) == (1, 6)  # 4 full, 22 sliding: groups of 4, two layers of padding
    assert layout.bytes_per_token == 4 * 2 * 256 * 2
    assert KvLayout.of(gemma, V0, 2.0, 1).bytes_per_token == 26 * 2 * 256 * 2
    even = from_config({**(known_model("Gemma-2-9B") or {})}, "gemma2")
    assert (KvLayout.of(even, V1, 2.0, 1).full_groups, KvLayout.of(even, V1, 2.0, 1).sliding_groups) == (1, 1)


def test_blocks_of_one_request() -> None:
    plain = KvLayout.of(llama_8b(), V1, 2.0, 1)
    assert plain.blocks_of_a_request(8192, 2048, 16) == 512
    assert plain.blocks_of_a_request(8193, 2048, 16) == 513
    gemma = KvLayout.of(from_config(known_model("Gemma-3-1B") or {}, "g"), V1, 2.0, 1)
    # all of it in the one full group; 512 - 1 + 2048 tokens and a block in each of six
    assert gemma.blocks_of_a_request(32768, 2048, 16) == 2048 + 6 * (160 + 1)


@pytest.mark.parametrize(("version", "number"), [
    ("0.8.5", (0, 8, 5)), ("0.14.0rc2.dev348", (0, 14, 0)), ("0.8.4/0.8.5", (0, 8, 4)), ("0.8", (0, 8, 99)), ("nonsense", (0, 32, 0)), (None, (0, 32, 0)),
])
def test_versions(version: str | None, number: tuple[int, int, int]) -> None:
    assert EngineRules.of(version).version == number


def test_defaults_by_card_and_version() -> None:
    assert NOW.default_max_num_seqs(79.1, "NVIDIA H100 80GB HBM3", 1) == 1024
    assert NOW.default_max_num_seqs(79.1, "NVIDIA A100-SXM4-80GB", 1) == 256
    assert NOW.default_batch(79.1, "H100", 1) == 8192
    assert NOW.default_batch(23.6, "RTX 3090", 1) == 2048
    assert NOW.default_batch(178.0, "B200", 1) == 16384
    assert EngineRules.of("0.32", cpu=True).default_max_num_seqs(64, "cpu", 2) == 256
    assert V0.default_max_num_seqs(79.1, "H100", 1) == 256
    # 1024 on every card in the first V1, which was taken back in 0.8.4 (vllm#16158)
    assert EngineRules.of("0.8.3").default_max_num_seqs(23.5, "RTX 4090", 1) == 1024
    assert EngineRules.of("0.8.4").default_max_num_seqs(23.5, "RTX 4090", 1) == 256
    assert EngineRules.of("0.8.4").default_max_num_seqs(79.1, "H100 80GB", 1) == 1024
    # NVML tells no memory of a card that shares the host's: the small defaults
    assert (NOW.default_max_num_seqs(119.7, "GB10", 1, True), NOW.default_batch(119.7, "GB10", 1, True)) == (256, 2048)
    assert not V0.chunked_prefill_default(32768, False)
    assert V0.chunked_prefill_default(131072, False)
    assert not V0.chunked_prefill_default(131072, True)


@pytest.mark.parametrize(("quantised", "cache"), [
    # As their config.json say it: nvidia's (ModelOpt, then its newer form), and llm-compressor's with and without scales for the cache
    ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}}, "fp8"),
    ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"dynamic": True, "num_bits": 8, "type": "float"}}, "bfloat16"),
    ({"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}}, "fp8"),
    ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, "bfloat16"), ({"quant_method": "modelopt", "kv_cache_quant_algo": None}, "bfloat16"),
    ({"quant_method": "fp8"}, "bfloat16"),
])
def test_a_checkpoint_with_cache_scales_has_a_quantised_cache(quantised: dict[str, object], cache: str) -> None:
    """`resolve_kv_cache_dtype_string` of vLLM 0.32; a flag wins, and older versions did not look."""
    model = llama_8b(quantization_config=quantised)

    def block_bytes(dtype: str, version: str = "0.32.0") -> float:
        return float(estimate_memory(engine(kv_cache_dtype=dtype), card(), model, version=version).block_bytes)

    assert block_bytes("auto") == block_bytes(cache)
    assert block_bytes("bfloat16") == block_bytes("auto", "0.12.0") == 16 * 131072
