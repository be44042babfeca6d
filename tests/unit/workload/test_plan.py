"""The traffic that a seed plans. The default pair's plan was recorded before a turn became a list of stages."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.metrics import DEFAULT_PAIR
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.plan import Ask, plan_step, plan_window
from tune_gpu.workload.stages import Services, background_stages, turn_stages
from tune_gpu.workload.texts import Text
from tune_gpu.workload.traffic import Traffic

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "planned_traffic.json").read_text(encoding="utf-8"))
CLIPS = [Utterance(name, np.zeros(16, dtype=np.float32), f"text of {name}") for name in "abcde"]
INPUTS = Inputs(CLIPS, [Text(f"text-{number}", f"request {number}") for number in range(4)])
WORKLOAD = WorkloadSettings(
    turn_rate_per_s=0.5, background_rate_per_s=1.0, max_tokens=64, windows=3, window_s=20.0, solo_window_s=10.0, capacity_step_s=6.0
)
SERVICES: Services = {"stt": Protocol.TRANSCRIPTION, "llm": Protocol.CHAT, "tts": Protocol.SPEECH, "embed": Protocol.EMBEDDING}


def traffic_of(workload: WorkloadSettings, services: Services = DEFAULT_PAIR) -> Traffic:
    stages = turn_stages(workload.turn, services)
    return Traffic(stages, {}, background=background_stages(workload, services, stages))


def asks_of(asks: Sequence[Ask]) -> list[list[Any]]:
    return [[ask.at_s.hex(), ask.content] for ask in sorted(asks, key=lambda ask: ask.at_s)]


def digest(plan: list[Any]) -> str:
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


@pytest.mark.parametrize("case", RECORDED["windows"])
def test_a_seed_plans_the_windows_that_it_planned_before(case: str) -> None:
    """Arrivals, clips, prompts and their order are equal to the bit, so that candidates of old runs and new ones had the same traffic."""
    mode, index, seed = case.split("/")
    only = {"mixed": None, "stt": "whisper", "llm": "vllm"}[mode]
    seconds = WORKLOAD.window_s if only is None else WORKLOAD.solo_window_s
    plan = plan_window(traffic_of(WORKLOAD), WORKLOAD, INPUTS, seed=int(seed), index=int(index), seconds=seconds, only=only)
    turns, asks = [[at_s.hex(), item.name] for at_s, item in plan.turns], asks_of(plan.asks)
    assert turns == RECORDED["windows"][case]["turns"]
    assert len(asks) == RECORDED["windows"][case]["n_asks"]
    assert digest([turns, asks]) == RECORDED["windows"][case]["sha256"]


@pytest.mark.parametrize("seed", RECORDED["ramp"])
def test_a_seed_plans_the_step_of_a_ramp_that_it_planned_before(seed: str) -> None:
    plan = plan_step(traffic_of(WORKLOAD), WORKLOAD, INPUTS, seed=int(seed), sessions=3, attempt=1)
    callers = [[[item.name, pause_s.hex()] for pause_s, item in itertools.islice(caller, 7)] for caller in plan.callers]
    assert callers == RECORDED["ramp"][seed]["callers"]
    assert digest([callers, [[ask.at_s.hex(), ask.content] for ask in plan.asks]]) == RECORDED["ramp"][seed]["sha256"]


def test_turns_that_begin_with_text_send_the_texts() -> None:
    workload = WorkloadSettings(turn=["llm", "tts"], turn_rate_per_s=2.0)
    plan = plan_window(traffic_of(workload, SERVICES), workload, INPUTS, seed=0, index=0, seconds=20.0)
    assert {item.name for _, item in plan.turns} == {text.name for text in INPUTS.texts}


@pytest.mark.parametrize(("turn", "only", "names"), [
    (["stt", "llm", "tts"], "stt", "abcde"), (["stt", "llm", "tts"], "llm", "abcde"), (["stt", "llm", "tts"], "tts", "abcde"),
    (["embed", "llm"], "llm", ["text-0", "text-1", "text-2", "text-3"]), (["llm", "tts", "stt"], "stt", "abcde"),
])  # fmt: skip
def test_a_service_alone_gets_the_input_of_its_kind(turn: list[str], only: str, names: Sequence[str]) -> None:
    """Behind a service that hears clips it is what is said in the clips."""
    workload = WorkloadSettings(turn=turn, turn_rate_per_s=2.0)
    plan = plan_window(traffic_of(workload, SERVICES), workload, INPUTS, seed=0, index=0, seconds=20.0, only=only)
    assert {item.name for _, item in plan.turns} == set(names)
    assert plan.asks == []


def test_every_service_gets_the_background_requests_of_its_kind() -> None:
    workload = WorkloadSettings(turn=["llm"], background={"embed": 2.0, "stt": 1.0, "tts": 1.0, "llm": 4.0}, background_prompt_tokens=16)
    plan = plan_window(traffic_of(workload, SERVICES), workload, INPUTS, seed=0, index=0, seconds=30.0)
    sent = {service: [ask.content for ask in plan.asks if ask.stage.service == service] for service in SERVICES}
    assert 30 < len(sent["embed"]) < 95
    assert 70 < len(sent["llm"]) < 180
    texts = {text.reference for text in INPUTS.texts}
    assert set(sent["embed"]) == set(sent["tts"]) == texts
    assert {content.seconds for content in sent["stt"]} == {16 / 16000}  # type: ignore[union-attr]
    assert len(set(sent["llm"])) == len(sent["llm"])
    assert not texts & set(sent["llm"]), "random words, which no prefix cache can hold"


def test_a_service_alone_gets_its_own_background_requests_only() -> None:
    workload = WorkloadSettings(turn=["llm"], background={"embed": 2.0, "llm": 4.0})
    plan = plan_window(traffic_of(workload, SERVICES), workload, INPUTS, seed=0, index=0, seconds=30.0, only="llm")
    assert {ask.stage.service for ask in plan.asks} == {"llm"}
