"""The plan of a window: what changes it and what must not, how sessions under way look, and what is planned in a turn."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import (
    ArrivalSettings,
    AuxiliarySettings,
    ProfileSettings,
    RetrievalSettings,
    SystemPromptSettings,
    ToolCallSettings,
    TurnTakingSettings,
)
from tune_gpu.workload.sessions.plan import RULE, plan_sessions, stream_sessions
from tune_gpu.workload.sessions.values import PlannedSession, PlannedTurn, Role, SessionWindow
from tune_gpu.workload.sources.loaded import SessionSources, load_sources
from tune_gpu.workload.stages import Stage, turn_stages

STAGES = turn_stages(["llm"], {"llm": Protocol.CHAT})
HOME = ProfileSettings(
    share=0.7,
    system_prompt=SystemPromptSettings(tokens=200),
    turns={"distribution": "lognormal", "median": 3, "p95": 9},
    answer_tokens={"distribution": "lognormal", "median": 30, "p95": 90},
    tool_calls=ToolCallSettings(0.5),
)
PHONE = ProfileSettings(share=0.3, system_prompt=SystemPromptSettings(tokens=300, per_session_tokens=50), turns=4, retrieval=RetrievalSettings(0.5, 100))
WORKLOAD = WorkloadSettings(
    kind="sessions",
    arrivals=ArrivalSettings(sessions_per_min=30),
    profiles={"home": HOME, "phone": PHONE},
    turn_taking=TurnTakingSettings(0.0, 0.2, 0.2),
    auxiliary={"titles": AuxiliarySettings(per_session=1.0), "others": AuxiliarySettings(per_min=20, prompt_tokens=50)},
)


def sources_of(workload: WorkloadSettings, stages: tuple[Stage, ...] = STAGES) -> SessionSources:
    return load_sources(workload, stages)


def plan(workload: WorkloadSettings = WORKLOAD, *, seed: int = 0, index: int = 0, seconds: float = 60.0) -> SessionWindow:
    return plan_sessions(workload, STAGES, sources_of(workload), seed=seed, index=index, seconds=seconds)


def with_profile(name: str, **change: Any) -> WorkloadSettings:
    return replace(WORKLOAD, profiles={**WORKLOAD.profiles, name: replace(WORKLOAD.profiles[name], **change)})


def by_name(window: SessionWindow) -> dict[str, PlannedSession]:
    return {session.name: session for session in window.sessions}


def arrived(window: SessionWindow) -> dict[str, PlannedSession]:
    """Return the sessions that began in the window: how many of the past take part depends on how long sessions last."""
    return {name: session for name, session in by_name(window).items() if "-s" in name}


def test_the_same_seed_and_window_plan_the_same() -> None:
    assert plan() == plan()
    assert plan(seed=1) != plan()
    assert plan(index=1) != plan()


def test_a_changed_plan_needs_another_version_of_the_rule() -> None:
    """Results are compared if their traffic has the same hash. What the same settings plan must not change under it: raise `RULE` if it does."""
    window = plan()
    shown = [
        [session.name, session.profile, round(session.starts_s, 6), [message.as_dict() for message in (*session.system, *session.past)],
         [[turn.says, turn.recorded, turn.answer_tokens, round(turn.think_s, 6), len(turn.tools), turn.retrieval is None] for turn in session.turns]]
        for session in window.sessions
    ]  # fmt: skip
    shown += [[request.name, request.session, request.after_turn, request.answer_tokens] for request in window.auxiliary]
    assert (RULE, hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]) == (1, "026022e6c86653c2")


def test_names_are_unique_and_starts_are_in_order() -> None:
    window = plan()
    assert len(by_name(window)) == len(window.sessions) > 20
    starts = [session.starts_s for session in window.sessions]
    assert starts == sorted(starts)
    assert 0.0 <= starts[0] <= starts[-1] < 60.0


def test_a_longer_window_adds_sessions_and_changes_none() -> None:
    short, long = arrived(plan(seconds=30.0)), arrived(plan(seconds=60.0))
    assert len(long) > len(short)
    assert {name: long[name] for name in short} == short


def test_one_more_turn_shifts_no_other_draw() -> None:
    for name, session in arrived(plan(with_profile("phone", turns=5))).items():
        before = arrived(plan())[name]
        assert session.turns[: len(before.turns)] == before.turns
        assert len(session.turns) - len(before.turns) == (session.profile == "phone")


CHANGES: dict[str, tuple[dict[str, Any], Callable[[PlannedTurn], Any]]] = {
    "think": ({"think_s": 9}, lambda turn: replace(turn, think_s=0.0)),
    "answers": ({"answer_tokens": 7}, lambda turn: replace(turn, answer_tokens=0, recorded="", barge_in_s=None)),
    "tools": ({"tool_calls": ToolCallSettings(0.9, 30, 2.0)}, lambda turn: replace(turn, tools=())),
    "retrieval": ({"retrieval": RetrievalSettings(0.9, 40)}, lambda turn: replace(turn, retrieval=None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_changes_its_own_draws_alone(change: str) -> None:
    settings, without = CHANGES[change]
    before, after = arrived(plan()), arrived(plan(with_profile("home", **settings)))
    assert before.keys() == after.keys()
    for name, session in before.items():
        assert after[name].starts_s == session.starts_s
        if session.profile == "phone":
            assert after[name] == session
        assert [without(turn) for turn in after[name].turns] == [without(turn) for turn in session.turns]


def test_another_profiles_change_leaves_a_profiles_past_alone() -> None:
    before, after = by_name(plan()), by_name(plan(with_profile("home", turns=12, think_s=20)))
    assert {n: s for n, s in before.items() if s.profile == "phone"} == {n: s for n, s in after.items() if s.profile == "phone"}


def test_profiles_have_their_shares_and_settings() -> None:
    sessions = list(islice(stream_sessions(WORKLOAD, sources_of(WORKLOAD), seed=0, index=0, seconds=math.inf), 4000))
    fresh = [session for session in sessions if not session.past]
    assert np.mean([session.profile == "home" for session in fresh]) == pytest.approx(0.7, abs=0.03)
    home = [session for session in fresh if session.profile == "home"]
    turns = [turn for session in home for turn in session.turns]
    assert np.median([len(session.turns) for session in home]) == 3
    assert np.median([turn.answer_tokens or 0 for turn in turns]) == pytest.approx(30, abs=1)
    assert np.mean([bool(turn.tools) for turn in turns]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([turn.barge_in_s is not None for turn in turns]) == pytest.approx(0.2, abs=0.02)
    assert np.median([turn.think_s for turn in turns if turn.number]) == pytest.approx(2.0, rel=0.1)
    assert {turn.think_s for turn in turns if not turn.number} == {0.0}
    assert all(0.4 < turn.preemptive < 0.9 for turn in turns if turn.preemptive is not None)


def test_in_the_steady_state_every_moment_has_as_many_sessions() -> None:
    """Little's law: the sessions that are under way when a window begins are the rate times a session's length."""
    under_way, length_s = [], []
    for index in range(16):
        sessions = plan(index=index, seconds=200.0).sessions  # longer than any pause, so that all who are under way go on in it
        under_way.append(sum(bool(session.past) for session in sessions))
        length_s += [sum(turn.think_s + 1.0 + 60 / 150 * len(turn.recorded.split()) for turn in s.turns[1:]) for s in sessions if not s.past]
    assert np.mean(under_way) == pytest.approx(0.5 * float(np.mean(length_s)), rel=0.15)


def test_a_session_under_way_has_its_history_and_goes_on() -> None:
    session = max(plan().sessions, key=lambda one: len(one.past))
    roles = [message.role for message in session.past]
    assert roles[0] is Role.USER
    assert roles[-1] is Role.ASSISTANT
    assert session.turns[0].number == roles.count(Role.USER)
    assert [turn.number for turn in session.turns] == list(range(session.turns[0].number, session.turns[0].number + len(session.turns)))
    for call, result in zip(session.past, session.past[1:], strict=False):
        if result.role is Role.TOOL:
            assert call.tool_calls[0]["id"] == result.tool_call_id


def test_a_cold_window_has_no_history() -> None:
    assert not any(session.past for session in plan(replace(WORKLOAD, steady_state=False)).sessions)


def test_a_window_has_a_session_whatever_the_rate() -> None:
    rare = replace(WORKLOAD, steady_state=False, arrivals=ArrivalSettings(sessions_per_min=1e-6))
    for index in range(10):
        (session,) = plan(rare, index=index).sessions
        assert 0.0 <= session.starts_s < 60.0
        assert session.turns


def test_shared_prompts_are_the_same_in_all_windows() -> None:
    def prompts(workload: WorkloadSettings) -> list[tuple[str, str]]:
        return [(session.profile, session.system[0].content) for index in range(2) for session in plan(workload, index=index).sessions]

    found = prompts(WORKLOAD)
    assert len({text for name, text in found if name == "home"}) == 1
    phone = {text for name, text in found if name == "phone"}
    assert len({text.partition("\n\n")[0] for text in phone}) == 1
    assert len(phone) == sum(name == "phone" for name, _ in found)
    own = prompts(with_profile("home", system_prompt=SystemPromptSettings(tokens=200, shared_by="session")))
    assert len({text for name, text in own if name == "home"}) == sum(name == "home" for name, _ in own)
    both = {name: SystemPromptSettings(tokens=tokens, shared_by="all") for name, tokens in (("home", 200), ("phone", 300))}
    shared = dict(prompts(replace(WORKLOAD, profiles={name: replace(WORKLOAD.profiles[name], system_prompt=of) for name, of in both.items()})))
    assert shared["phone"].startswith(shared["home"].rstrip("."))


@pytest.mark.parametrize("where", ["head", "tail"])
def test_a_clock_is_different_in_every_turn(where: str) -> None:
    clocked = with_profile("home", system_prompt=SystemPromptSettings(text="You are a home.", volatile=where))
    session = max((s for s in plan(clocked).sessions if s.profile == "home"), key=lambda one: len(one.turns))
    texts = [session.system[0].content, *((turn.system or ())[0].content for turn in session.turns)]
    assert len(set(texts)) == len(texts) > 2
    assert all(text.startswith("The time is ") == (where == "head") and "You are a home." in text for text in texts)
    assert all(turn.system is None for s in plan().sessions for turn in s.turns)


def test_natural_answers_have_no_length_but_a_recorded_text() -> None:
    turns = [turn for session in plan(with_profile("phone", answer_tokens="natural")).sessions if session.profile == "phone" for turn in session.turns]
    assert {turn.answer_tokens for turn in turns} == {None}
    assert all(turn.recorded for turn in turns)


def test_auxiliary_requests_follow_their_turns() -> None:
    window = plan()
    titles = [request for request in window.auxiliary if request.name == "titles"]
    assert {(request.session, request.after_turn) for request in titles} == {(s.name, 0) for s in window.sessions if not s.past}
    others = [request.at_s for request in window.auxiliary if request.name == "others"]
    assert 8 < len(others) < 35
    assert all(at_s is not None and 0 < at_s < 60 for at_s in others)
    assert {request.service for request in window.auxiliary} == {"llm"}


def test_tools_are_defined_where_they_are_called() -> None:
    for session in plan().sessions:
        names = {tool["function"]["name"] for tool in session.tools}
        called = {call["function"]["name"] for turn in session.turns for step in turn.tools for call in step.call.tool_calls}
        assert called <= names
        json.dumps([*session.tools, *(message.as_dict() for message in session.past)])
