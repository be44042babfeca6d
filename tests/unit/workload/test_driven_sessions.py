"""Sessions on a simulated assistant: what the LLM hears, what a history holds, and turns that fail, are shed or are cut."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.simulated import ENDLESS, Simulated
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.sessions.drive import run_sessions
from tune_gpu.workload.sessions.exchange import words_so_far
from tune_gpu.workload.sessions.filling import fill, filling_of, shared_start
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.playback import SHORTEST_STALL_S, Part, play
from tune_gpu.workload.sessions.sentences import Sentences
from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn, Role, SessionWindow
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult

STT, LLM, TTS = (Stage(name, name, protocol) for name, protocol in (("stt", Protocol.TRANSCRIPTION), ("llm", Protocol.CHAT), ("tts", Protocol.SPEECH)))
NO_PAUSE = Habits(listen_wpm=0.0)


def session(*says: str, name: str = "s", starts_s: float = 0.0, spoken: bool = False, past: tuple[Message, ...] = (), **more: Any) -> PlannedSession:
    def clip(text: str) -> Utterance | None:
        return Utterance("clip", np.full(160, 0.1, dtype=np.float32), text) if spoken else None

    turns = tuple(PlannedTurn(number, text, clip(text), f"recorded {number}", 3, 0.0, **more) for number, text in enumerate(says))
    return PlannedSession(name, "home", starts_s, (Message(Role.SYSTEM, "Be brief."),), (), past, turns)


def driven(server: Simulated, *sessions: PlannedSession, chain: tuple[Stage, ...] = (LLM,), habits: Habits = NO_PAUSE, seconds: float = 30.0, **change: Any) -> WindowResult:
    only, abort = change.pop("only", None), change.pop("abort", lambda: None)
    with server.running() as url:
        traffic = Traffic(chain, {stage.service: Endpoint(url, "", "m") for stage in (STT, LLM, TTS)})
        workload = WorkloadSettings(**{"request_timeout_s": 20.0, **change})
        return run_sessions(SessionWindow(sessions), traffic, workload, habits, seconds=seconds, only=only, abort=abort)


def words(server: Simulated) -> list[list[str]]:
    """Return what each request to the LLM held, without the system prompt."""
    return [[message["content"] for message in asked.messages[1:]] for asked in server.chats()]


def test_a_recorded_history_holds_the_plans_texts_whatever_was_answered() -> None:
    server = Simulated()
    driven(server, session("one", "two"), habits=replace(NO_PAUSE, own_history=False))
    assert words(server) == [["one"], ["one", "recorded 0", "two"]]


def test_a_history_of_ones_own_holds_what_was_heard_and_answered() -> None:
    server = Simulated(transcript="won")
    habits = replace(NO_PAUSE, own_history=True, hears_transcript=True)
    driven(server, session("one", "two", spoken=True), chain=(STT, LLM), habits=habits)
    assert words(server) == [["won"], ["won", "This is one ", "won"]]


def test_the_llm_hears_the_reference_and_speech_to_text_is_measured() -> None:
    server = Simulated(transcript="won")
    result = driven(server, session("one", spoken=True), chain=(STT, LLM))
    assert words(server) == [["one"]]
    assert result.turns[0].transcript == "won"
    assert summarise([result]).n_failed == 0


@pytest.mark.parametrize(("own", "histories"), [(False, [["one"], ["one", "recorded 0", "two"]]), (True, [["one"], ["two"]])])
def test_a_turn_that_failed_is_in_the_history_only_if_it_was_recorded(own: bool, histories: list[list[str]]) -> None:
    server = Simulated(fails={"/v1/audio/speech"})
    result = driven(server, session("one", "two"), chain=(LLM, TTS), habits=replace(NO_PAUSE, own_history=own))
    assert [turn.error for turn in result.turns] == ["tts_http_500"] * 2
    assert words(server) == histories


def test_a_context_too_long_fails_the_turn_by_its_name_and_is_not_trimmed() -> None:
    result = driven(Simulated(context=60), session("one", "two", "three"))
    assert [turn.error for turn in result.turns] == [None, None, "llm_context_too_long"]


def test_a_turn_that_the_end_cuts_is_censored_and_counts_as_nothing() -> None:
    """The LLM is asked when the window has ended, so that its time-out lies behind the last moment of the window."""
    server = Simulated(stt_s=0.3, first_token_s=30.0)
    result = driven(server, session("one", "two", spoken=True), chain=(STT, LLM), seconds=0.05, request_timeout_s=1.0)
    assert (result.turns, [turn.place and turn.place.number for turn in result.censored]) == ([], [0])
    cut = result.censored[0]
    assert (cut.censored, cut.error, cut.turn_ms, list(cut.samples)) == (True, None, None, ["stt"])


def test_a_request_that_had_its_whole_time_out_failed() -> None:
    result = driven(Simulated(first_token_s=30.0), session("one"), seconds=1.0, request_timeout_s=0.2)
    assert [turn.error for turn in result.turns] == ["llm_timeout"]


def test_a_turn_that_would_be_due_after_the_end_is_not_taken() -> None:
    server = Simulated()
    result = driven(server, session("one", "two"), session("late", name="t", starts_s=99.0), seconds=0.5, habits=Habits(listen_wpm=1.0))
    assert (len(result.turns), result.planned, result.censored) == (1, 3, [])


def test_turns_beyond_the_allowed_number_in_flight_are_shed() -> None:
    server = Simulated(first_token_s=0.2)
    result = driven(server, session("one"), session("two", name="t"), max_inflight_turns=1)
    assert sorted(turn.error or "" for turn in result.turns) == ["", "shed"]


def test_a_service_that_died_ends_the_window_at_once_and_leaves_nothing() -> None:
    server = Simulated(first_token_s=60.0)
    result = driven(server, session("one"), abort=lambda: "it died" if server.chats() else None)
    assert (result.aborted, result.turns, result.censored) == ("it died", [], [])
    assert [asked.cancelled for asked in server.chats()] == [True]


def test_a_service_alone_gets_the_same_words() -> None:
    server = Simulated()
    result = driven(server, session("one", "two", spoken=True), chain=(STT, LLM, TTS), only="llm")
    assert (result.mode, server.of("/v1/audio/speech"), server.of("/v1/audio/transcriptions")) == ("llm", [], [])
    assert [sorted(turn.samples) for turn in result.turns] == [["llm"], ["llm"]]
    assert [turn.turn_ms for turn in result.turns] == [None, None]


def test_a_spoken_answer_is_heard_from_its_first_sentence_on() -> None:
    """The synthesis of the first sentence is asked for while the answer is still being written."""
    server = Simulated(token_s=0.05)
    turns = (replace(session("one").turns[0], answer_tokens=10),)
    result = driven(server, replace(session("one"), turns=turns), chain=(LLM, TTS))
    speech, chat = server.of("/v1/audio/speech"), server.chats()[0]
    assert [asked.body["input"] for asked in speech] == ["This is one whole sentence."] * 2
    assert speech[0].arrived < chat.ended
    turn = result.turns[0]
    assert list(turn.samples) == ["llm", "tts"]
    assert turn.heard_from == turn.samples["tts"].first_output
    assert turn.turn_ms == pytest.approx(turn.voice_to_voice_ms)
    assert turn.answered_at == turn.further[0].sample.done


def test_the_caller_speaks_into_a_playback_whose_answer_is_all_there() -> None:
    server = Simulated(audio_s=60.0)
    result = driven(server, session("one", "two", barge_in_s=0.01), chain=(LLM, TTS), seconds=20.0)
    assert [(turn.interrupted, turn.error, turn.n_cancelled) for turn in result.turns] == [(True, None, 0)] * 2


def test_an_answer_that_is_heard_to_its_end_before_is_not_interrupted() -> None:
    result = driven(Simulated(audio_s=0.05), session("one", barge_in_s=30.0), chain=(LLM, TTS))
    assert not result.turns[0].interrupted


def test_an_interrupted_answer_is_in_ones_own_history_as_far_as_it_came() -> None:
    server = Simulated()
    driven(server, session(f"one {ENDLESS}", "two", barge_in_s=0.01), habits=replace(NO_PAUSE, own_history=True))
    assert words(server)[1] == [f"one {ENDLESS}", "This is one whole sentence. ", "two"]


def test_nothing_of_a_window_is_left_running() -> None:
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    driven(Simulated(first_token_s=60.0), session("one"), seconds=0.05, request_timeout_s=0.2)
    assert asyncio.run(tasks()) == 1


def test_what_sessions_share_is_filled_before_their_pasts_in_order() -> None:
    past = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "hello"))
    plan = SessionWindow([session("x", name="late", starts_s=2.0, past=past), session("y", name="soon", starts_s=1.0, past=past), session("z", name="new")])
    asked = [[message.content for message in chat.messages] for chat in filling_of(plan)]
    assert asked == [["Be brief."], ["Be brief.", "hi", "hello"], ["Be brief.", "hi", "hello"]]
    assert {chat.answer_tokens for chat in filling_of(plan)} == {1}


def test_a_filling_counts_its_requests_and_their_tokens() -> None:
    past = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "hello"))
    server = Simulated(context=30)
    with server.running() as url:
        traffic = Traffic((LLM,), {"llm": Endpoint(url, "", "m")})
        filling = fill(SessionWindow([session("x", past=past), session("y", name="t")]), traffic, WorkloadSettings())
    assert (filling.requests, filling.failed, filling.prompt_tokens) == (2, 1, len("system:Be brief."))


@given(st.lists(st.text(alphabet="ab .", max_size=200), min_size=2, max_size=4))
def test_the_shared_start_of_prompts_begins_each_of_them(texts: list[str]) -> None:
    shared = shared_start([(Message(Role.SYSTEM, text),) for text in texts])
    assert all(text.startswith(message.content) for message in shared for text in texts)
    assert len(shared) <= 1


@given(st.lists(st.text(alphabet='ab .!?\n"3', max_size=30)))
def test_sentences_are_the_whole_answer_in_order_however_it_arrives(parts: list[str]) -> None:
    together, apart = Sentences(), Sentences()
    found = [sentence for part in parts for sentence in apart.add(part)] + apart.rest()
    assert "".join("".join(found).split()) == "".join("".join(parts).split())
    assert found == together.add("".join(parts)) + together.rest()


def test_a_sentence_is_complete_at_its_mark_and_not_within_a_number() -> None:
    sentences = Sentences()
    assert sentences.add("It costs 3.50 euros. Shall I") == ["It costs 3.50 euros."]
    assert sentences.add(" order it? Dr. Who") == ["Shall I order it?"]
    assert sentences.rest() == ["Dr. Who"]


PARTS = st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=6)


@given(PARTS, st.none() | st.floats(0, 20))
def test_a_playback_is_its_parts_and_its_stalls(drawn: list[tuple[float, float, float]], until: float | None) -> None:
    parts, ready = [], 0.0
    for after, more, seconds in drawn:
        ready += after
        parts.append(Part(ready, ready + more, seconds))
    heard, whole = play(parts, until), play(parts)
    assert heard is not None
    assert whole is not None
    assert whole.ends - whole.starts == pytest.approx(sum(part.seconds for part in parts) + sum(whole.stalls_s), abs=2 * SHORTEST_STALL_S * len(parts))
    assert heard.ends <= whole.ends
    assert sum(heard.stalls_s) <= sum(whole.stalls_s) + 1e-9


def test_audio_that_comes_as_fast_as_it_plays_does_not_stall() -> None:
    assert play([Part(0.0, 0.5, 1.0), Part(0.9, 1.5, 1.0), Part(2.0, 2.0, 1.0)]) is not None
    assert [part for part in [play([Part(0.0, 0.5, 1.0), Part(0.9, 1.5, 1.0)])] if part and part.stalls_s] == []


@pytest.mark.parametrize(("share", "said"), [(0.5, "one two"), (0.01, "one"), (0.99, "one two three")])
def test_the_first_share_of_the_words_is_at_least_one(share: float, said: str) -> None:
    assert words_so_far("one two three four", share) == said


def test_turns_have_a_place_in_their_session() -> None:
    past = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "hello"))
    result = driven(Simulated(), session("one", "two"), session("three", name="t", past=past))
    places = sorted((turn.place.session, turn.place.number, turn.place.returning) for turn in result.turns if turn.place)
    assert places == [("s", 0, False), ("s", 1, True), ("t", 0, True)]


def test_the_first_turn_is_sent_when_it_is_due_and_not_before() -> None:
    result = driven(Simulated(), session("one", starts_s=0.1))
    turn: Turn = result.turns[0]
    assert turn.due == pytest.approx(result.started + 0.1)
    assert min(result.lag_ms) >= 0.0
    assert time.monotonic() >= turn.due
