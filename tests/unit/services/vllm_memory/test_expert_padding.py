"""Experts on the card are larger than in the checkpoint, by the tiles of the kernel that vLLM chooses for the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.expert_padding import capability, padding
from tune_gpu.services.vllm.memory.parts import weights

GIB = 2**30
RULES = EngineRules.of("0.24.0")


def gpt_oss(layers: int = 36, experts: int = 128) -> ModelArchitecture:
    return from_config({
        "model_type": "gpt_oss", "num_hidden_layers": layers, "hidden_size": 2880, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 2880, "vocab_size": 201088, "tie_word_embeddings": False, "num_local_experts": experts, "num_experts_per_tok": 4,
        "max_position_embeddings": 131072, "quantization_config": {"quant_method": "mxfp4"},
    }, "gpt-oss")  # fmt: skip


def growth(card: str, cards: int = 1, rules: EngineRules = RULES) -> float:
    model = gpt_oss()
    assert model.format is not None
    return padding(model, model.format, rules, card, cards)[0]


@pytest.mark.parametrize(("layers", "experts", "gib"), [(24, 32, 13.47), (36, 128, 64.38)])
def test_weights_of_gpt_oss_as_an_h100_logged_them(layers: int, experts: int, gib: float) -> None:
    found = weights(gpt_oss(layers, experts), None, 2, 1, EngineRules.of("0.11.0"), "H100 80GB")
    assert found.value / GIB == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(("card", "cards", "hidden", "inner", "size"), [
    ("A100 80GB", 1, 3072, 2944, 2880), ("RTX 4090", 4, 3072, 768, 720), ("H100 80GB", 1, 3072, 2880, 2880), ("H200", 8, 3072, 384, 360),
    ("B200", 1, 3072, 3072, 2880), ("RTX PRO 6000 Blackwell", 1, 3072, 2944, 2880), ("no such card", 1, 3072, 2944, 2880),
])
def test_each_kernel_rounds_a_card_s_part_up(card: str, cards: int, hidden: int, inner: int, size: int) -> None:
    assert growth(card, cards) == pytest.approx(hidden * inner / (2880 * size) - 1)


def test_a_later_kernel_of_blackwell_pads_less() -> None:
    assert growth("B200", rules=EngineRules.of("0.27.0")) == pytest.approx(3072 * 2944 / 2880**2 - 1)


def test_an_unknown_choice_of_kernel_widens_the_doubt() -> None:
    model = gpt_oss()
    assert model.format is not None
    assert padding(model, model.format, RULES, "RTX 5090", 1)[1] > 2 * padding(model, model.format, RULES, "H100", 1)[1]


def test_experts_of_other_formats_are_doubted_where_tiles_do_not_fit() -> None:
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 4, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
              "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 151936,
              "max_position_embeddings": 4096, "quantization_config": {"quant_method": "fp8"}}  # fmt: skip
    model = from_config(config, "experts")
    assert model.format is not None
    assert padding(model, model.format, RULES, "H100", 2) == (0.0, 0.0)
    assert padding(model, model.format, RULES, "H100", 8)[1] == pytest.approx(0.5 / 3)


@pytest.mark.parametrize("version", ["0.32.0", "0.6.4"])
def test_the_cpu_and_the_first_engine_pad_nothing(version: str) -> None:
    rules = EngineRules.of(version, cpu=version == "0.32.0", v1=None)
    assert growth("A100 80GB", rules=rules) == 0.0


def test_every_card_of_the_table_has_a_capability() -> None:
    table = json.loads((Path(__file__).parents[4] / "tune_gpu" / "evaluation" / "memory_check" / "cards.json").read_text())
    unknown = [name for name in table if capability(name) is None]
    assert len(unknown) <= 0.35 * len(table), unknown
    assert {capability(name) for name in table if "H100" in name or "H200" in name} == {90}
    assert {capability(name) for name in table if name.startswith("RTX 50")} == {120}
