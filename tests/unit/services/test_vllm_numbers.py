"""Numbers as vLLM's flags take them are accepted wherever a configuration gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import apply_overrides, load_config
from tune_gpu.evaluation.memory_check.cards import card_memory
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.memory_values import MemoryVerdict
from tune_gpu.services.vllm.numbers import read_count, read_length
from tune_gpu.services.vllm.setup import serve_flags


@pytest.mark.parametrize(("text", "number"), [("32k", 32_000), ("32K", 32_768), ("25.6k", 25_600), ("1M", 1_048_576), (" 64 ", 64), ("2g", 2 * 10**9)])
def test_text_is_the_number_that_vllm_reads(text: str, number: int) -> None:
    assert read_count(text) == read_length(text) == number


@given(st.one_of(st.none(), st.booleans(), st.integers(0), st.sampled_from(["", "k", "1.5K", "-1k", "32 k", "many", "0x10"])))
def test_what_is_no_such_text_stays_as_it_is(value: Any) -> None:
    assert read_length(value) is value


@pytest.mark.parametrize("given", ["auto", "AUTO", "-1"])
def test_the_context_may_be_left_to_vllm(given: str) -> None:
    config = load_config("spica_gpu_allocation", [f"services.vllm.max_model_len={given}"], "cpu")
    check_config(config)
    assert "--max-model-len auto" in " ".join(serve_flags(config.services.vllm))
    assert apply_overrides(config, ["services.vllm.max_model_len=2k"]).services.vllm.max_model_len == 2000


def test_an_automatic_context_is_not_modelled_and_does_not_end_a_plan() -> None:
    knob = "parameters.context={target: vllm.max_model_len, values: [64, auto]}"
    config = load_config("spica_gpu_allocation", [knob, "baseline.context=-1"], "cpu")
    params, found = Preflight(config, card_memory("RTX 3060")).predict_space(check_space(config))
    verdicts = {(params["context"][index], found.verdict_of(index)) for index in range(len(found))}
    assert {context for context, verdict in verdicts if verdict is MemoryVerdict.NOT_MODELLED} == {"auto"}
    assert "max_model_len=auto" in next(found.explain(index).reason for index in range(len(found)) if params["context"][index] == "auto")


def test_knobs_baselines_and_conditions_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({
        "parameters": {
            "batch": {"target": "vllm.max_num_batched_tokens", "values": ["2k", "4K"]},
            "eager": {"target": "vllm.enforce_eager", "values": [True, False], "when": {"batch": ["4K"]}},
        },
        "baseline": {"batch": "2k"}, "services": {"vllm": {"max_model_len": "1k"}},
    }))  # fmt: skip
    config = load_config(str(path), [], "cpu")
    space = check_space(config)
    assert [params["batch"] for params in space.enumerate()] == [2000, 4096, 4096]
    assert (config.baseline, config.services.vllm.max_model_len) == ({"batch": 2000}, 1000)


@pytest.mark.parametrize("given", ["32x", "0", "-2", "1.5", "true"])
def test_a_context_that_is_no_number_is_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"vllm\.max_model_len"):
        check_space(load_config("spica_gpu_allocation", [f"services.vllm.max_model_len={given}"], "cpu"))
