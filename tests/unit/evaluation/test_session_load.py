"""The load of an evaluation whose traffic is sessions: one salt, filled windows, a ramp of callers, and what is counted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulated import BLOCK, Simulated
from tune_gpu.common.metric import Protocol
from tune_gpu.compare.measuring_actor import measured_as
from tune_gpu.compare.samples import Pair, Replicate, Turn, turns_of
from tune_gpu.config.loader import config_of, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.session_load import SessionLoad, planned_sessions
from tune_gpu.services.running import Endpoint
from tune_gpu.testing import fake_server
from tune_gpu.workload.sessions.achieved import achieved_of
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.window import WindowResult, never


def experiment(**change: Any) -> ExperimentConfig:
    traffic = {
        "kind": "sessions",
        "turn": ["llm"],
        "arrivals": {"sessions_per_min": 240},
        "profiles": {"home": {"turns": 4, "answer_tokens": 5, "think_s": 0.05, "system_prompt": {"tokens": 60, "per_session_tokens": 20}}},
        "listen_wpm": 0,
        "window_s": 1.0,
        "capacity_step_s": 0.8,
        **change,
    }
    return config_of({"services": {"llm": {"kind": "vllm", "model": "m"}}, "parameters": {}, "workload": traffic})


@contextmanager
def loading(server: Simulated, config: ExperimentConfig) -> Iterator[tuple[SessionLoad, Traffic]]:
    plan, _ = planned_sessions(config)
    with server.running() as url:
        yield SessionLoad(config.workload, plan), Traffic((Stage("llm", "llm", Protocol.CHAT),), {"llm": Endpoint(url, "", "m")})


def window(load: SessionLoad, traffic: Traffic, index: int) -> WindowResult:
    return load.drive(load.fill(traffic, index, None, None, never), traffic, None, None, never)


def salts(server: Simulated) -> list[Any]:
    return list(dict.fromkeys(asked.body["cache_salt"] for asked in server.chats()))


def test_all_windows_of_an_evaluation_share_one_salt_and_no_other_does() -> None:
    server, config = Simulated(), experiment()
    with loading(server, config) as (load, traffic):
        window(load, traffic, 0)
        window(load, traffic, 1)
        assert len(salts(server)) == 1
        assert len(load.fillings) == 2
    with loading(server, config) as (load, traffic):
        window(load, traffic, 0)
    assert len(salts(server)) == 2


def test_a_window_that_is_driven_again_begins_as_cold_as_the_first_time() -> None:
    """The same prompts would otherwise find the answers of the disturbed window."""
    server, config = Simulated(), experiment()
    with loading(server, config) as (load, traffic):
        hits = []
        for _ in range(2):
            before = len(server.chats())
            window(load, traffic, 0)
            hits.append([asked.hit for asked in server.chats()[before:][: load.fillings[-1].requests]])
    assert len(salts(server)) == 2
    assert hits[0] == hits[1]
    assert hits[0][0] == 0


def test_a_session_with_a_past_finds_it_in_the_cache_from_the_start() -> None:
    server, config = Simulated(), experiment()
    with loading(server, config) as (load, traffic):
        result = window(load, traffic, 0)
    filled = server.chats()[: load.fillings[0].requests]
    assert {asked.body["max_tokens"] for asked in filled} == {1}
    returning = [turn for turn in result.turns if turn.place and turn.place.returning]
    assert returning
    for turn in returning:
        answer = turn.answers[0]
        assert answer.prompt_tokens is not None
        assert answer.cached_tokens is not None
        assert answer.cached_tokens > 60, "at least the system prompt, which has sixty words"


def test_a_step_of_the_ramp_holds_so_many_callers_from_its_beginning_on() -> None:
    server = Simulated()
    with loading(server, experiment()) as (load, traffic):
        turns, aborted = load.hold(traffic, 0, 3, 0, never)
    assert aborted is None
    assert len({turn.place.session for turn in turns if turn.place}) == 3


def test_what_became_of_the_turns_is_counted() -> None:
    server, config = Simulated(), experiment()
    with loading(server, config) as (load, traffic):
        result = window(load, traffic, 0)
        counted = achieved_of([result], load.fillings)
    assert counted is not None
    assert counted["planned"] >= counted["offered"] == counted["achieved"] + counted["censored"] == len(result.turns)
    assert counted["filling"]["requests"] == load.fillings[0].requests > 0
    assert counted["filling"]["prompt_tokens"] == sum(len(asked.text) for asked in server.chats()[: load.fillings[0].requests])
    assert achieved_of([WindowResult("mixed")]) is None


@pytest.mark.parametrize(("given", "measured"), [({}, ("own", "transcript", "comparison")), ({"history": "recorded", "llm_hears": "reference", "half": "all"}, ("recorded", "reference", "all"))])
def test_a_comparison_lets_sessions_go_as_users_have_them(given: dict[str, str], measured: tuple[str, ...]) -> None:
    compared = measured_as(experiment(**given), capacity=False, windows=1, window_s=None).workload
    assert (compared.history, compared.llm_hears, compared.half) == measured


def test_turns_of_sessions_are_paired_by_their_places_and_not_by_arrival() -> None:
    quick = [Turn({"ttft_ms": 1.0}, place="a/0"), Turn({"ttft_ms": 2.0}, place="b/0"), Turn({"ttft_ms": 3.0}, place="a/1")]
    slow = [Turn({"ttft_ms": 20.0}, place="b/0"), Turn({"ttft_ms": 10.0}, place="a/0")]
    pair = Pair(Replicate("x", 0, tuple(quick)), Replicate("y", 0, tuple(slow)))
    assert [(ours.values["ttft_ms"], theirs.values["ttft_ms"]) for ours, theirs in turns_of(pair)] == [(1.0, 10.0), (2.0, 20.0)]
    assert Turn.from_dict(quick[0].as_dict()) == quick[0]
    assert "place" not in replace(quick[0], place=None).as_dict()


SPACE = f"""
name: talking
services:
  llm:
    kind: command
    command: [{sys.executable}, -P, {Path(fake_server.__file__)}, "{{port}}", "1"]
    health: /health
    api: openai-chat
    model: fake
    stop_grace_s: 0.5
parameters: {{}}
objective: {{weights: {{llm.latency: 1.0}}, targets: {{llm.latency_ms: 2000}}}}
traffic:
  kind: sessions
  turn: [llm]
  arrivals: {{sessions_per_min: 120}}
  profiles: {{home: {{turns: 6, answer_tokens: 3, think_s: 0.05, system_prompt: {{tokens: 40}}}}}}
  listen_wpm: 0
  auxiliary: {{titles: {{per_turn: 0.5, answer_tokens: 2}}}}
  warmup_turns: 1
  window_s: 1.0
  solo_window_s: 0.6
  capacity_step_s: 0.8
  session_pause_s: 0.1
  capacity_max_sessions: 2
run: {{preflight: false, hang_timeout_s: 20}}
"""


def test_an_evaluation_of_sessions_has_its_windows_solo_windows_and_ramp(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    evaluator = Evaluator(load_config(str(tmp_path / "space.yaml"), [], "cpu", trust=True), "cpu")
    try:
        measured = evaluator.evaluate({})
    finally:
        evaluator.close()
    assert measured.failure is None
    counted = measured.metrics["sessions"]
    assert counted["achieved"] == counted["offered"] > 0
    assert (counted["filling"]["failed"], counted["censored"]) == (0, 0)
    assert measured.metrics["llm.ttft_ms"]["n"] == counted["achieved"]
    assert measured.metrics["n_requests"] > counted["achieved"], "and the titles"
    assert measured.metrics["interference_ratio"]["llm"] > 0.0
    assert measured.metrics["concurrent_capacity"] is not None
    assert measured.score is not None
    assert measured.score.fitness is not None
    assert measured.timings.load_s >= counted["filling"]["seconds"] + 1.0
    found = measured.metrics
    assert (found["offered_turns"], found["achieved_turns"], found["censored_turns"]) == (counted["offered"], counted["achieved"], 0)
    assert found["voice_to_voice_ms"]["n"] == found["stall_ms"]["n"] == found["llm.prompt_tokens"]["n"] == counted["achieved"]
    assert found["llm.longest_context_tokens"] > found["llm.prompt_tokens"]["p50"] > 0.0
    assert found["requests_at_once"]["llm"] >= 1
    assert found["llm.prefix_hit_pct"] is found["llm.prefix_hit_of_ideal_pct"] is found["llm.working_set_pct"] is None, "the server has no page of metrics"


def test_the_ideal_of_a_window_is_what_an_endless_cache_has_found() -> None:
    """The server's tokens are characters of its own template, and its cache of 16 of them a block never forgets."""
    server, config = Simulated(), experiment()
    with loading(server, config) as (load, traffic):
        plan = load.fill(traffic, 0, None, None, never)
        filled = len(server.chats())
        result = load.drive(plan, traffic, None, None, never)
        found = load.ideals(plan, result, traffic, {"llm": BLOCK})["llm"]
        assert load.ideals(plan, result, traffic, {}) == {}
    asked = server.chats()[filled:]
    assert found.prompt_tokens == sum(len(each.text) for each in asked)
    hits = sum(each.hit for each in asked) * BLOCK
    assert abs(found.hit_tokens - hits) <= BLOCK * len(asked), "to the block, of each prompt"
    assert found.hit_tokens > 0.5 * found.prompt_tokens
    assert found.working_set_tokens <= sum(len(each.text) + 5 for each in server.chats())
