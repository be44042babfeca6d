"""The golden test of the generator: a plan by hand on a simulated assistant, whose own log is the truth.

What each request must hold, and how much of it the prefix cache must have, is written here from the plan's texts alone: without the generator's
history, filling, tokenizer or clock. Times are compared by the server's clock and in one direction only, so that a busy machine breaks nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.support.simulated import BLOCK, ENDLESS, Asked, Simulated
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.sessions.drive import run_sessions
from tune_gpu.workload.sessions.filling import Filling, fill
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.values import (
    AuxiliaryRequest,
    Message,
    PlannedSession,
    PlannedTurn,
    Retrieval,
    Role,
    SessionWindow,
    ToolStep,
)
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Purpose, Turn
from tune_gpu.workload.window import WindowResult

STT, LLM, TTS = (Stage(name, name, protocol) for name, protocol in (("stt", Protocol.TRANSCRIPTION), ("llm", Protocol.CHAT), ("tts", Protocol.SPEECH)))
EMBED = Stage("embed", "embed", Protocol.EMBEDDING)
SHARED = "You are the assistant of a house with forty rooms, each of which has a lamp, a blind and a radiator."
TOOL = {"type": "function", "function": {"name": "lamp"}}
CALL = Message(Role.ASSISTANT, "", ({"id": "c", "type": "function", "function": {"name": "lamp", "arguments": "{}"}},))
RESULT = Message(Role.TOOL, "the lamp is on", tool_call_id="c")
TITLE = Message(Role.USER, "Write a title for this.")
ASIDE = Message(Role.USER, "Summarise the news of the day, please.")
THINK_S = 0.03


def said(role: Role, *words: str) -> tuple[Message, ...]:
    return tuple(Message(role, word) for word in words)


def turn(number: int, says: str, clip_s: float = 0.1, **more: Any) -> PlannedTurn:
    clip = Utterance("clip", np.full(round(16_000 * clip_s), 0.1, dtype=np.float32), says)
    return PlannedTurn(number, says, clip, f"recorded answer number {number}.", 12, THINK_S, **more)


def plan() -> SessionWindow:
    """Return two sessions with a past and one that begins, with every kind of request."""
    system = Message(Role.SYSTEM, f"{SHARED} ")
    alice = PlannedSession(
        "alice", "home", 0.02, (replace(system, content=f"{SHARED} Alice is the caller, and she lives in the attic."),), (TOOL,),
        (*said(Role.USER, "Good morning to you."), *said(Role.ASSISTANT, "Good morning, Alice.")),
        (
            turn(1, "Turn on the lamp in the kitchen", tools=(ToolStep(CALL, RESULT, 0.02),)),
            turn(2, "And tell me a story without an end " + ENDLESS, barge_in_s=0.02),
            turn(3, "That is enough for now, thank you"),
        ),
    )  # fmt: skip
    bob = PlannedSession(
        "bob", "home", 0.04, (replace(system, content=f"{SHARED} Bob is the caller, and he lives in the cellar."),), (TOOL,),
        (*said(Role.USER, "Is it raining?"), *said(Role.ASSISTANT, "No, it is not.")),
        (
            turn(1, "Where is the manual of the heating", retrieval=Retrieval("heating manual", "The manual of the heating is in the cellar.")),
            turn(2, f"Please raise the heating {ENDLESS} by two degrees, thank you", clip_s=1.5, preemptive=0.5),
        ),
    )  # fmt: skip
    carol = PlannedSession("carol", "phone", 0.05, said(Role.SYSTEM, "Answer the phone."), (), (), (turn(0, "Hello, who is there?"),))
    return SessionWindow(
        [alice, bob, carol],
        [AuxiliaryRequest("title", "llm", (TITLE,), 5, session="alice", after_turn=1), AuxiliaryRequest("news", "llm", (ASIDE,), 7, at_s=0.03)],
    )


def expected(session: str, number: int) -> list[str]:
    """Return what the LLM must be asked in a turn, each as the last words of the prompt's messages, with `recorded` histories."""
    found = {
        ("alice", 1): [["Turn on the lamp in the kitchen"], ["Turn on the lamp in the kitchen", "", "the lamp is on"]],
        ("alice", 2): [["the lamp is on", "recorded answer number 1.", "And tell me a story without an end " + ENDLESS]],
        ("alice", 3): [["And tell me a story without an end " + ENDLESS, "recorded answer number 2.", "That is enough for now, thank you"]],
        ("bob", 1): [["No, it is not.", "The manual of the heating is in the cellar.\n\nWhere is the manual of the heating"]],
        ("bob", 2): [
            ["Where is the manual of the heating", "recorded answer number 1.", f"Please raise the heating {ENDLESS}"],
            ["Where is the manual of the heating", "recorded answer number 1.", f"Please raise the heating {ENDLESS} by two degrees, thank you"],
        ],
        ("carol", 0): [["Answer the phone.", "Hello, who is there?"]],
    }  # fmt: skip
    return [" / ".join(words) for words in found[session, number]]


@cache
def golden() -> tuple[Simulated, Filling, WindowResult]:
    """Return the log of the server, the filling and the window: driven once for all tests."""
    server = Simulated(first_token_s=0.01)
    with server.running() as url:
        stages = (STT, LLM, TTS)
        endpoints = {name: Endpoint(url, "", name) for name in ("stt", "llm", "tts", "embed")}
        traffic = replace(Traffic((STT, EMBED, LLM, TTS), endpoints), cache_salt="salt")
        assert set(stages) < set(traffic.stages)
        workload = WorkloadSettings(request_timeout_s=30.0)
        filling = fill(plan(), traffic, workload)
        return server, filling, run_sessions(plan(), traffic, workload, Habits(), seconds=60.0)


def by_session(server: Simulated, name: str) -> list[Asked]:
    """Return the scored requests of a session; who it is stands in its system prompt."""
    sign = {"alice": "Alice is", "bob": "Bob is", "carol": "Answer the phone."}[name]
    return [asked for asked in server.chats()[3:] if any(sign in message["content"] for message in asked.messages)]


def turns(result: WindowResult) -> dict[tuple[str, int], Turn]:
    return {(turn.place.session, turn.place.number): turn for turn in result.turns if turn.place}


def test_every_planned_turn_is_taken_once_and_none_fails() -> None:
    _, _, result = golden()
    assert sorted(turns(result)) == [("alice", 1), ("alice", 2), ("alice", 3), ("bob", 1), ("bob", 2), ("carol", 0)]
    assert [turn.error for turn in result.turns] == [None] * 6
    assert (result.planned, result.censored, result.aborted) == (6, [], None)
    assert sorted((ask.name, ask.error) for ask in result.background) == [("news", None), ("title", None)]


def test_each_service_gets_exactly_the_planned_requests() -> None:
    server, filling, result = golden()
    assert len(server.chats()) == 3 + 8 + 2, "of the filling, the turns with a tool call and a pre-emptive request, and beside them"
    assert len(server.of("/v1/audio/transcriptions")) == 6
    assert [asked.body["input"] for asked in server.of("/v1/embeddings")] == ["heating manual"]
    sentences = sum(len([label for label, _ in turn.requests if label == "tts"]) for turn in result.turns)
    assert len(server.of("/v1/audio/speech")) == sentences
    assert (filling.requests, filling.failed) == (3, 0)
    assert {asked.body["cache_salt"] for asked in server.chats()} == {"salt"}


@pytest.mark.parametrize("key", [("alice", 1), ("alice", 2), ("alice", 3), ("bob", 1), ("bob", 2), ("carol", 0)])
def test_the_messages_of_a_turn_are_the_plans(key: tuple[str, int]) -> None:
    server, _, _ = golden()
    ends = [" / ".join(message["content"] for message in asked.messages) for asked in by_session(server, key[0])]
    for words in expected(*key):
        assert sum(end.endswith(words) for end in ends) == 1, (words, ends)


def test_the_tokens_that_are_asked_for_are_the_plans() -> None:
    server, _, _ = golden()
    whole = [asked for asked in server.chats() if not asked.cancelled]
    assert {asked.body["max_tokens"] for asked in server.chats()[:3]} == {1}
    assert sorted(asked.body["max_tokens"] for asked in server.chats()[3:])[:2] == [5, 7]
    assert all(asked.sent == asked.body["max_tokens"] == asked.body["min_tokens"] for asked in whole)


def test_only_planned_requests_are_cancelled_and_their_tokens_counted() -> None:
    server, _, result = golden()
    cancelled = [asked for asked in server.chats() if asked.cancelled]
    assert all(asked.text.endswith(ENDLESS) for asked in cancelled)
    assert len(cancelled) == 2, "the answer that was spoken into, and the pre-emptive request"
    found = turns(result)
    assert found["alice", 2].interrupted
    assert [other.purpose for other in found["bob", 2].further].count(Purpose.PREEMPTIVE) == 1
    assert [key for key, turn in found.items() if turn.interrupted] == [("alice", 2)]
    for asked in cancelled:
        key = ("alice", 2) if "Alice is" in asked.text else ("bob", 2)
        assert 0 < found[key].wasted_tokens <= asked.sent, "the last may be on its way when the stream is closed"
    assert found["alice", 2].wasted_tokens == 5, "the sentence that was heard"
    assert sum(turn.wasted_tokens for turn in result.turns) == found["alice", 2].wasted_tokens + found["bob", 2].wasted_tokens


def test_the_prefix_blocks_that_are_hit_are_those_that_the_plan_implies() -> None:
    """Each prompt of a session begins with the one before it, and the first with what was filled for it."""
    server, _, result = golden()
    shared, *pasts = server.chats()[:3]
    assert shared.hit == 0
    assert SHARED.startswith(shared.messages[0]["content"][:90])
    for past in pasts:
        assert past.hit == len(shared.text) // BLOCK
    for name, past in zip(("alice", "bob"), pasts, strict=True):
        before = [past.text]
        for asked in by_session(server, name):
            assert asked.hit == max(common(earlier, asked.text) for earlier in before) // BLOCK
            assert asked.hit >= len(past.text) // BLOCK, "at least what was filled"
            before.append(asked.text)
    for key, number in [(("alice", 1), 1), (("alice", 3), -1), (("carol", 0), -1)]:
        sample, asked = turns(result)[key].samples["llm"], by_session(server, key[0])[number]
        assert isinstance(sample, GenerationSample)
        assert (sample.prompt_tokens, sample.cached_tokens) == (len(asked.text), BLOCK * asked.hit)


def common(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_no_turn_is_due_before_the_caller_has_heard_and_thought() -> None:
    """By the server's clock: the answer was sent before it was heard, so what lies between is at least what the caller takes."""
    server, _, _ = golden()
    asked = [chat for chat in by_session(server, "alice") if not any(m["content"] == TITLE.content for m in chat.messages)]
    tool, answer, endless, after = asked
    assert answer.arrived - tool.ended >= 0.02, "the tool takes its time"
    assert endless.arrived - answer.first >= THINK_S + 0.05, "one sentence at least is played, then comes the pause"
    assert after.arrived - endless.first >= 0.02, "the caller listens a little before speaking into the answer"


def test_what_the_caller_measures_contains_what_the_server_took() -> None:
    server, _, result = golden()
    for key in [("carol", 0), ("alice", 3)]:
        measured = turns(result)[key].samples["llm"]
        asked = by_session(server, key[0])[-1]
        assert isinstance(measured, GenerationSample)
        assert measured.ttft_ms is not None
        assert measured.latency_ms is not None
        assert measured.ttft_ms >= 1e3 * (asked.first - asked.arrived) >= 10.0
        assert measured.latency_ms >= measured.ttft_ms
        whole = turns(result)[key].voice_to_voice_ms
        assert whole is not None
        assert whole >= measured.ttft_ms
