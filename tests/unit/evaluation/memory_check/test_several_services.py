"""The memory check of services of any number and kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_gpu.config.kinds import load_kind
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig, VllmSettings, WhisperSettings
from tune_gpu.evaluation.memory_check import DeviceMemory, MemoryVerdict, card_memory
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.base import Service
from tune_gpu.services.deployment import resolve

CARD = card_memory("RTX 3090")
RANK = [MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN, MemoryVerdict.INFEASIBLE]


def engine(name: str, share: float, model: str = "Qwen/Qwen2.5-0.5B-Instruct") -> Service:
    return Service(name, load_kind("vllm"), VllmSettings(model=model, gpu_memory_utilization=share, max_model_len=2048, max_num_seqs=16))


def recogniser(name: str, size: str = "base") -> Service:
    return Service(name, load_kind("faster-whisper"), WhisperSettings(model=size, compute_type="float16"))


def verdict(*services: Service, device: DeviceMemory = CARD) -> MemoryVerdict:
    return Preflight(ExperimentConfig(), device, None, "0.32.0").predict(services).verdict


def test_the_second_engine_has_what_the_first_has_left() -> None:
    preflight = Preflight(ExperimentConfig(), CARD, None, "0.32.0")
    first, second = engine("first", 0.5), engine("second", 0.4)
    assert preflight.predict([first, second]).verdict is MemoryVerdict.FITS
    found = preflight.predict([first, replace(second, settings=replace(second.settings, gpu_memory_utilization=0.6))])
    assert (found.verdict, found.service) == (MemoryVerdict.INFEASIBLE, "second")
    assert found.reason.startswith("second: vLLM's share of")
    assert "first 12" in found.reason, found.reason


def test_a_recogniser_alone_fits_by_its_own_size() -> None:
    assert verdict(recogniser("stt", "large-v3")) is MemoryVerdict.FITS
    assert verdict(recogniser("stt", "large-v3"), device=replace(CARD, used_mib=CARD.total_mib - 1000)) is MemoryVerdict.INFEASIBLE


def test_what_nobody_knows_is_uncertain_and_named() -> None:
    settings = load_kind("command").Settings(command=["serve"], health="/health")
    known, unknown = (Service("tts", load_kind("command"), replace(settings, memory_mib=mib)) for mib in (800.0, None))
    preflight = Preflight(ExperimentConfig(), CARD, None, "0.32.0")
    assert preflight.predict([engine("llm", 0.5), known]).verdict is MemoryVerdict.FITS
    found = preflight.predict([engine("llm", 0.5), unknown])
    assert found.verdict is MemoryVerdict.UNCERTAIN
    assert found.reason.endswith("what tts takes is not known")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["tiny", "base", "large-v3"]), st.floats(0.05, 0.5)), min_size=1, max_size=3))
def test_another_service_makes_no_verdict_better(drawn: list[tuple[str, float]]) -> None:
    services: list[Service] = []
    worst = 0
    for number, (size, share) in enumerate(drawn):
        for service in (recogniser(f"stt{number}", size), engine(f"llm{number}", share)):
            services.append(service)
            rank = RANK.index(verdict(*services))
            assert rank >= worst or len(services) < 3
            worst = rank


SPACE: dict[str, Any] = {
    "services": {
        "stt": {"kind": "faster-whisper", "model": "base", "compute_type": "float16"},
        "one": {"kind": "vllm", "model": "Qwen/Qwen2.5-3B-Instruct", "max_model_len": 4096, "gpu_memory_utilization": 0.5},
        "two": {"kind": "vllm", "model": "Qwen/Qwen2.5-0.5B-Instruct", "max_model_len": 2048, "gpu_memory_utilization": 0.2},
    },
    "parameters": {
        "one_share": {"target": "one.gpu_memory_utilization", "values": [0.3, 0.5, 0.7]},
        "two_share": {"target": "two.gpu_memory_utilization", "values": [0.1, 0.3, 0.6]},
        "size": {"target": "stt.model", "values": ["tiny", "large-v3"]},
    },
}  # fmt: skip


@pytest.mark.parametrize("used_mib", [0.0, 3000.0, 12000.0])
def test_the_columns_of_a_space_are_as_each_asked_alone(used_mib: float) -> None:
    config = config_of(SPACE)
    preflight = Preflight(config, replace(CARD, used_mib=used_mib), None, "0.32.0")
    params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    assert len(found) == 18
    for index in range(len(found)):
        candidate = {name: values[index].item() if hasattr(values[index], "item") else values[index] for name, values in params.items()}
        alone = preflight.predict(resolve(config, candidate, "cuda").services)
        assert found.verdict_of(index) is alone.verdict is found.explain(index).verdict
        assert found.explain(index).service == alone.service
        if alone.headroom_mib is not None:
            assert found.headroom_mib[index] == pytest.approx(alone.headroom_mib, abs=0.1)
