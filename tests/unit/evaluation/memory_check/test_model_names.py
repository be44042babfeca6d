"""Which model a name stands for is printed, and never guessed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.memory.engine_memory import find_model


@pytest.mark.parametrize("name", ["microsoft/Phi-4-multimodal-instruct", "mistralai/Mistral-7B-MoE", "Qwen/Qwen3-8B-Omni", "zai-org/GLM-4-9B-Flash"])
def test_a_part_that_the_known_model_lacks_is_another_model(name: str) -> None:
    with pytest.raises(UserError, match="no known model has that name"):
        find_model(name)


def test_a_gguf_without_its_mixture_is_not_modelled() -> None:
    assert "mixture" in (find_model("bartowski/Qwen2.5-7B-Instruct-GGUF").refusal or "")
    named = find_model("bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M")
    assert named.refusal is None
    assert named.format is not None
    assert named.format.bits == pytest.approx(4.85, abs=0.2)


def test_where_the_shapes_are_from_is_said() -> None:
    assert find_model("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ").read_from == "the known model Qwen2.5-7B, weights in awq"


def test_the_plan_prints_the_model_and_the_card_that_it_used() -> None:
    done = CliRunner().invoke(main, ["plan", "--gpu", "NVIDIA GeForce RTX 2060", "services.vllm.model=Qwen/Qwen2.5-Coder-1.5B"])
    assert "memory of Qwen/Qwen2.5-Coder-1.5B: from the known model Qwen2.5-1.5B" in done.output
    assert "RTX 2060 (cuda): 5931 MiB" in done.output
