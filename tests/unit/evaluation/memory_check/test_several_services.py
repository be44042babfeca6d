"""The memory check of services of any number and kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_gpu.config.kinds import load_kind
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.cards import card_memory
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.base import Service
from tune_gpu.services.deployment import resolve
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict
from tune_gpu.services.vllm.settings import VllmSettings

CARD = card_memory("RTX 3090")
RANK = [MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN, MemoryVerdict.INFEASIBLE]


def engine(name: str, share: float, model: str = "Qwen/Qwen2.5-0.5B-Instruct") -> Service:
    return Service(name, load_kind("vllm"), VllmSettings(model=model, gpu_memory_utilization=share, max_model_len=2048, max_num_seqs=16))


def recogniser(name: str, size: str = "base") -> Service:
    return Service(name, load_kind("faster-whisper"), WhisperSettings(model=size, compute_type="float16"))


def verdict(*services: Service, device: DeviceMemory = CARD) -> MemoryVerdict:
    return Preflight(ExperimentConfig(), device, None, {"vllm": "0.32.0"}).predict(services).verdict


def test_the_second_engine_has_what_the_first_has_left() -> None:
    preflight = Preflight(ExperimentConfig(), CARD, None, {"vllm": "0.32.0"})
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
    preflight = Preflight(ExperimentConfig(), CARD, None, {"vllm": "0.32.0"})
    assert preflight.predict([engine("llm", 0.5), known]).verdict is MemoryVerdict.FITS
    found = preflight.predict([engine("llm", 0.5), unknown])
    assert found.verdict is MemoryVerdict.UNCERTAIN
    assert found.reason.endswith("what tts takes is not known")


VOICES: dict[str, Any] = {
    "services": {
        "llm": {"kind": "vllm", "model": "Qwen/Qwen2.5-0.5B-Instruct", "max_model_len": 2048, "gpu_memory_utilization": 0.5},
        "tts": {"kind": "command", "command": ["serve", "{port}", "{settings.voice}"], "health": "/health", "settings": {"voice": "heart"}},
    },
    "parameters": {"voice": {"target": "tts.settings.voice", "values": ["heart", "sky", "ash"]}},
}  # fmt: skip


@pytest.mark.parametrize("with_engine", [True, False])
def test_a_command_counts_by_what_its_earlier_starts_took(tmp_path: Path, with_engine: bool) -> None:
    config = config_of(VOICES if with_engine else VOICES | {"services": {"tts": VOICES["services"]["tts"]}})
    starts = EarlierStarts(tmp_path / "starts.json")
    for voice, mib in (("heart", 900.0), ("sky", 20000.0)):
        starts.learn(resolve(config, {"voice": voice}, "cuda")["tts"], CARD, voice, mib, under_load=True)
    preflight = Preflight(config, CARD, None, {"vllm": "0.32.0"}, starts=starts)
    params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    expected = {"heart": MemoryVerdict.FITS, "sky": MemoryVerdict.INFEASIBLE if with_engine else MemoryVerdict.FITS, "ash": MemoryVerdict.UNCERTAIN}
    for index, voice in enumerate(params["voice"]):
        alone, explained = preflight.predict(resolve(config, {"voice": voice}, "cuda").services), found.explain(index)
        assert found.verdict_of(index) is alone.verdict is explained.verdict is expected[voice]
        assert alone.reason == explained.reason
        assert alone.parts_mib == pytest.approx(explained.parts_mib)
        assert ("what tts takes is not known" in alone.reason) is ("tts" not in alone.parts_mib) is (voice == "ash")
    assert preflight.from_starts()["tts"].startswith("from 1 earlier start (900 to 20000 MiB ±")


def test_the_settings_of_a_command_overrule_its_earlier_starts(tmp_path: Path) -> None:
    config, starts = config_of(VOICES), EarlierStarts(tmp_path / "starts.json")
    service = resolve(config, {}, "cuda")["tts"]
    starts.learn(service, CARD, "a", 23000.0, under_load=True)
    stated = replace(service, settings=replace(service.settings, memory_mib=500.0))
    preflight = Preflight(config, CARD, None, {"vllm": "0.32.0"}, starts=starts)
    assert preflight.predict([stated]).parts_mib["tts"] == 500.0
    assert preflight.from_starts() == {}
    assert (preflight.unmodelled(service), preflight.unmodelled(stated), preflight.unmodelled(engine("llm", 0.5))) == (True, False, False)


def test_a_server_that_runs_already_is_a_neighbour(tmp_path: Path) -> None:
    other = Service("other", load_kind("external"), load_kind("external").Settings(url="http://127.0.0.1:1"))
    assert not Preflight(ExperimentConfig(), CARD, None, {"vllm": "0.32.0"}, starts=EarlierStarts(tmp_path / "starts.json")).unmodelled(other)


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
    preflight = Preflight(config, replace(CARD, used_mib=used_mib), None, {"vllm": "0.32.0"})
    params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    assert len(found) == 18
    for index in range(len(found)):
        candidate = {name: values[index].item() if hasattr(values[index], "item") else values[index] for name, values in params.items()}
        alone = preflight.predict(resolve(config, candidate, "cuda").services)
        assert found.verdict_of(index) is alone.verdict is found.explain(index).verdict
        assert found.explain(index).service == alone.service
        if alone.headroom_mib is not None:
            assert found.headroom_mib[index] == pytest.approx(alone.headroom_mib, abs=0.1)
