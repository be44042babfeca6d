"""Sources of conversations: what each format gives, and one line with its number for what is not valid."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import AudioSettings, WorkloadSettings
from tune_gpu.config.session_settings import ArrivalSettings, ProfileSettings, SystemPromptSettings
from tune_gpu.workload.sessions.plan import plan_sessions
from tune_gpu.workload.sessions.values import Role
from tune_gpu.workload.sources.loaded import SessionSources, half_of, load_sources
from tune_gpu.workload.sources.values import Conversation
from tune_gpu.workload.stages import turn_stages

CHAT = turn_stages(["llm"], {"llm": Protocol.CHAT})
VOICE = turn_stages(["stt", "llm"], {"stt": Protocol.TRANSCRIPTION, "llm": Protocol.CHAT})
TOOL = {"type": "function", "function": {"name": "light", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{}"}}
USER, ASSISTANT = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}


def sources(path: Path, *, stages: Any = CHAT, half: str = "all", arrivals: ArrivalSettings | None = None, **profile: Any) -> SessionSources:
    given_ = ProfileSettings(source=str(path), **profile)
    workload = WorkloadSettings(kind="sessions", half=half, profiles={"p": given_}, arrivals=arrivals or ArrivalSettings(), audio=AudioSettings(noise_snr_db=[None]))
    return load_sources(workload, stages)


def conversations(path: Path, **more: Any) -> Sequence[Conversation]:
    return sources(path, **more).profiles["p"].conversations


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def clip(path: Path, says: str | None, seconds: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.ones(int(16000 * seconds)) * 3000).astype("<i2").tobytes())
    if says is not None:
        path.with_suffix(".txt").write_text(says, encoding="utf-8")


def test_openai_messages_keep_system_tools_calls_and_answers(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "You are a home."}, {"role": "user", "content": [{"type": "text", "text": "Light on."}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "c2"}]},
        {"role": "tool", "tool_call_id": "c2", "content": "off"}, {"role": "tool", "tool_call_id": "c1", "content": "on"},
        {"role": "assistant", "content": "It is on."}, {"role": "user", "content": "Thanks."},
    ]  # fmt: skip
    path = written(tmp_path / "own.jsonl", {"messages": messages, "tools": [TOOL]}, "", {"body": {"messages": [USER, ASSISTANT]}})
    first, second = conversations(path)
    assert (first.name, second.name) == ("line 1", "line 3")
    assert (first.system, first.tools) == ("You are a home.", (TOOL,))
    on, thanks = first.exchanges
    assert (on.says, on.answer, thanks.says, thanks.answer) == ("Light on.", "It is on.", "Thanks.", None)
    assert [(call.tool_calls[0]["id"], result.content) for call, result in on.tools] == [("c1", "on"), ("c2", "off")]


def test_planned_messages_are_valid_for_the_openai_package(tmp_path: Path) -> None:
    """The package's own types are the truth of the format."""
    pytest.importorskip("openai")
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
    from pydantic import TypeAdapter

    messages = [USER, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "on"}, ASSISTANT] * 3
    path = written(tmp_path / "own.jsonl", *({"messages": [{"role": "developer", "content": f"{n}."}, *messages], "tools": [TOOL]} for n in range(3)))
    profiles = {"own": ProfileSettings(source=str(path)), "made": ProfileSettings(turns=6)}
    profiles["made"].tool_calls.probability = 0.5
    workload = WorkloadSettings(kind="sessions", half="all", profiles=profiles, arrivals=ArrivalSettings(sessions_per_min=60))
    window = plan_sessions(workload, CHAT, load_sources(workload, CHAT), seed=0, index=0, seconds=20)
    assert {session.profile for session in window.sessions} == {"own", "made"}
    for session in window.sessions:
        steps = [message for turn in session.turns for step in turn.tools for message in (step.call, step.result)]
        TypeAdapter(list[ChatCompletionMessageParam]).validate_python([message.as_dict() for message in (*session.system, *session.past, *steps)], strict=False)
        TypeAdapter(list[ChatCompletionToolParam]).validate_python(list(session.tools))


def test_sharegpt_is_read_as_others_read_it_and_the_rest_is_counted(tmp_path: Path) -> None:
    def said(*pairs: tuple[str, str]) -> dict[str, Any]:
        return {"id": "x", "conversations": [{"from": role, "value": value} for role, value in pairs]}

    entries = [
        said(("human", "One?"), ("gpt", "Two."), ("human", "Three?"), ("gpt", "Four.")), said(("gpt", "Before."), ("human", "A?"), ("gpt", "B.")),
        said(("human", "A?"), ("human", "B?")), said(), said(("human", "C?"), ("tool", "D.")),
    ]  # fmt: skip
    as_list = tmp_path / "list.json"
    as_list.write_text(json.dumps(entries), encoding="utf-8")
    found = sources(as_list)
    assert [[(e.says, e.answer) for e in one.exchanges] for one in found.profiles["p"].conversations] == [[("One?", "Two."), ("Three?", "Four.")], [("A?", "B.")]]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "2 conversations not used: roles out of order (the first: conversation 3)", "1 conversation not used: without a turn of the user (the first: conversation 4)",
    ]  # fmt: skip
    assert [one.exchanges for one in conversations(written(tmp_path / "lines.jsonl", *entries))] == [one.exchanges for one in found.profiles["p"].conversations]


def test_prompts_are_lines_or_vllms_json_lines(tmp_path: Path) -> None:
    plain = conversations(written(tmp_path / "p.txt", "First one.", "", "  Second one. "))
    assert [(one.name, one.exchanges[0].says) for one in plain] == [("line 1", "First one."), ("line 3", "Second one.")]
    (custom,) = conversations(written(tmp_path / "p.jsonl", {"prompt": "Third.", "output_tokens": 7}))
    assert (custom.exchanges[0].says, custom.exchanges[0].answer_tokens) == ("Third.", 7)


def test_a_folder_of_clips_is_a_session_each(tmp_path: Path) -> None:
    for session, number, says in (("ann", 1, "one"), ("ann", 2, "two"), ("ann", 10, "ten"), ("bob", 1, "hello")):
        clip(tmp_path / session / f"{number}.wav", says)
    (tmp_path / "ann" / "notes.md").write_text("x", encoding="utf-8")
    clip(tmp_path / "flat.wav", "flat")
    found = sources(tmp_path, stages=VOICE)
    ann, bob, flat = found.profiles["p"].conversations
    assert [exchange.says for exchange in ann.exchanges] == ["one", "two", "ten"]
    assert (bob.name, flat.name, len(found.clips)) == ("bob", "flat", 5)
    assert all(exchange.clip is not None and exchange.clip.duration_s == pytest.approx(0.1) for exchange in ann.exchanges)
    assert [note.partition(": ")[2] for note in found.notes] == ["1 file not used: neither NN.wav nor its NN.txt (the first: ann/notes.md)"]
    assert sources(tmp_path).clips == [], "a turn of text uses what is said in them"


def test_a_conversation_has_its_own_turns_and_goes_on_if_more_are_wanted(tmp_path: Path) -> None:
    path = written(tmp_path / "own.jsonl", *({"messages": [{"role": "user", "content": f"{n}.{k}"} if k % 2 == 0 else ASSISTANT for k in range(6)]} for n in range(4)))
    for turns, counted in ((None, {3}), (2, {2}), (5, {5})):
        workload = WorkloadSettings(kind="sessions", half="all", steady_state=False, profiles={"p": ProfileSettings(source=str(path), turns=turns)})
        window = plan_sessions(workload, CHAT, load_sources(workload, CHAT), seed=0, index=0, seconds=60)
        assert {len(session.turns) for session in window.sessions} == counted
        for session in window.sessions:
            own = session.turns[0].says.partition(".")[0]
            assert [turn.says for turn in session.turns[:3]] == [f"{own}.{k}" for k in (0, 2, 4)][: len(session.turns)]
            assert {(turn.recorded, turn.answer_tokens) for turn in session.turns} == {("Hi.", 1)}
        assert len({session.turns[0].says for session in window.sessions[:4]}) == 4


def test_halves_have_no_conversation_in_common_and_lines_move_none(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": f"Question {n}?"}, ASSISTANT]} for n in range(60)]
    path = written(tmp_path / "a.jsonl", *lines)
    search, other, everything = ({one.exchanges for one in conversations(path, half=half)} for half in ("search", "comparison", "all"))
    assert search | other == everything
    assert not search & other
    assert 15 < len(search) < 45
    more = written(tmp_path / "b.jsonl", {"messages": [{"role": "user", "content": "New?"}]}, *reversed(lines))
    assert search <= {one.exchanges for one in conversations(more, half="search")}
    (only,) = conversations(written(tmp_path / "c.jsonl", lines[0]))
    empty = "comparison" if half_of(only) == "search" else "search"
    with pytest.raises(UserError, match=r"none of its conversations is in the half for .*workload\.half=all"):
        sources(tmp_path / "c.jsonl", half=empty)


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    one = sources(written(tmp_path / "a.jsonl", {"messages": [USER, ASSISTANT]})).digest
    assert sources(written(tmp_path / "renamed.jsonl", "", {"messages": [USER, ASSISTANT]})).digest == one
    assert sources(written(tmp_path / "a.jsonl", {"messages": [USER, {**ASSISTANT, "content": "Ho."}]})).digest != one
    assert sources(tmp_path / "renamed.jsonl", system_prompt=SystemPromptSettings(text="x")).digest != one


def message(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


INVALID: dict[str, tuple[Any, str]] = {
    "a session without turns": ({"messages": []}, r"line 2: a conversation without a turn\."),
    "only a system message": ({"messages": [message("system")]}, r"line 2: a conversation without a turn"),
    "the assistant first": ({"messages": [ASSISTANT, USER]}, r"line 2: message 1 is of the assistant, where the user's is due"),
    "two users": ({"messages": [message("system"), USER, USER]}, r"line 2: message 3 is of the user, where the assistant's is due"),
    "a late system message": ({"messages": [USER, ASSISTANT, message("system")]}, r"line 2: message 3 is of the system, where the user's is due"),
    "a call without result": ({"messages": [USER, message("assistant", tool_calls=[CALL]), ASSISTANT]}, r"line 2: the tool call 'c1' has no result"),
    "a result without call": ({"messages": [USER, message("tool", tool_call_id="c1")]}, r"line 2: message 2 is of the tool"),
    "a result of another call": (
        {"messages": [USER, message("assistant", tool_calls=[CALL]), message("tool", tool_call_id="c1"), message("tool", tool_call_id="c9")]}, r"line 2: message 4 answers no call",
    ),
    "an unknown role": ({"messages": [message("human")]}, r"line 2: message 1 has the role 'human'\. Use one of system, user"),
    "an image": ({"messages": [message("user", [{"type": "image_url", "image_url": {"url": "x"}}])]}, r"line 2: message 1 has a part 'image_url': only texts"),
    "speech in a message": ({"messages": [message("user", [{"type": "input_audio"}])]}, r"line 2: message 1 has a part 'input_audio'"),
    "no content": ({"messages": [message("user", None)]}, r"line 2: the content of message 1 is a NoneType"),
    "half a line": ('{"messages": [{"role": "user", "cont', r"line 2: not whole JSON \("),
    "a list": ([1], r"line 2: a JSON list, not an object"),
    "no messages": ({"text": "x"}, r"line 2: no list of messages"),
    "no tool": ({"messages": [USER], "tools": [{"name": "x"}]}, r"line 2: tool 1 is not a definition of a function"),
    "deep nesting": ('{"messages": ' + "[" * 100_000, r"line 2: not whole JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_line_is_one_clear_line_with_its_number(tmp_path: Path, case: str) -> None:
    line, expected = INVALID[case]
    with pytest.raises(UserError, match=expected) as caught:
        sources(written(tmp_path / "own.jsonl", {"messages": [USER, ASSISTANT]}, line))
    assert str(caught.value).startswith(f"workload.profiles.p.source={tmp_path}/own.jsonl, line 2: ")
    assert "\n" not in str(caught.value)


def test_a_source_of_another_modality_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own\.jsonl: has texts, but a turn begins with speech\. Give a folder of clips"):
        sources(written(tmp_path / "own.jsonl", {"messages": [USER]}), stages=VOICE)


INVALID_FOLDERS: dict[str, tuple[Sequence[tuple[str, str | None, float]], str]] = {
    "no text": ([("a/1.wav", None, 0.1)], r"folder a: a session without turns"),
    "a text missing": ([("a/1.wav", "x", 0.1), ("a/2.wav", None, 0.1)], r"a/2\.wav: no 2\.txt beside it"),
    "no words": ([("a/1.wav", "[x]", 0.1)], r"a/1\.txt: no words"),
    "too long": ([("a/1.wav", "x", 31.0)], r"a/1\.wav: longer than workload\.audio\.max_utterance_s=30"),
    "not audio": ([("a/1.wav", "x", 0.0)], r"a/1\.wav: "),
    "empty": ([], r"has no conversation"),
}


@pytest.mark.parametrize("case", INVALID_FOLDERS)
def test_an_invalid_folder_of_clips_is_one_clear_line(tmp_path: Path, case: str) -> None:
    clips, expected = INVALID_FOLDERS[case]
    for name, says, seconds in clips:
        clip(tmp_path / name, says, seconds)
    with pytest.raises(UserError, match=expected) as caught:
        sources(tmp_path, stages=VOICE)
    assert str(caught.value).startswith("workload.profiles.p.source=")
    assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_those_of_a_session(tmp_path: Path) -> None:
    """A file system allows any bytes in a name."""
    clip(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")) / "1.wav", "hello")
    (found,) = conversations(tmp_path, stages=VOICE)
    assert found.exchanges[0].says == "hello"
    assert len(sources(tmp_path, stages=VOICE).digest) == 64


def test_arrival_times_are_read_and_may_not_go_back(tmp_path: Path) -> None:
    def times(*lines: str) -> Sequence[float]:
        return sources(written(tmp_path / "p.txt", "Hello."), arrivals=ArrivalSettings("times", file=str(written(tmp_path / "t.csv", *lines)))).times

    assert times("time_s,who", "0.5,ann", "# pause", "2,bob", "2,eve") == (0.5, 2.0, 2.0)
    with pytest.raises(UserError, match=r"workload\.arrivals\.file=.*t\.csv, line 3: the time goes back, from 2 to 1\.5\. Sort"):
        times("1", "2", "1.5")
    for line in ("x", "-1", "nan", "1e99", "2026-01-01T00:00:00"):
        with pytest.raises(UserError, match=r"line 2: .* is not a time in seconds"):
            times("1", line)


@pytest.mark.parametrize("format_", ["messages", "sharegpt", "prompts", None])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "conversations", "prompt", "role", "from", "value", "content", "tools", "tool_calls", "body"]), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
@example(content=b"[" * 5000)
@example(content=b'{"prompt": "\\ud800"}')
@example(content="﻿Hello.".encode())
@example(content=b"\0\0")
def test_any_bytes_are_conversations_or_one_line(tmp_path: Path, content: bytes, format_: str | None) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        found = conversations(path, format=format_)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(error).startswith("workload.profiles.p.source=")  # noqa: PT017
        return
    for one in found:
        json.dumps([exchange.says for exchange in one.exchanges]).encode()
        assert one.exchanges


def test_what_a_profile_names_must_exist(tmp_path: Path) -> None:
    for profile, expected in (
        ({}, r"workload\.profiles\.p\.source=.*none: no such file"),
        ({"system_prompt": SystemPromptSettings(file=str(tmp_path / "x"))}, r"system_prompt\.file=.*no such file"),
        ({"system_prompt": SystemPromptSettings(tools=str(written(tmp_path / "t.json", [{}])))}, r"system_prompt\.tools=.*tool 1 is not a definition"),
        ({"format": "clips"}, r"format=clips: .* is a file"),
    ):
        path = tmp_path / "none" if not profile else written(tmp_path / "p.txt", "Hello.")
        with pytest.raises(UserError, match=expected):
            sources(path, **profile)


def test_roles_have_the_names_of_openai() -> None:
    assert list(Role) == ["system", "user", "assistant", "tool"]


def test_the_demonstration_has_turns_of_two_voices_with_answers() -> None:
    pytest.importorskip("hibari")
    pytest.importorskip("chitchat_dataset")
    spoken = conversations(Path("demonstration"), stages=VOICE)
    assert len(spoken) >= 20
    assert all(len(one.exchanges) >= 4 for one in spoken)
    assert all(exchange.clip is not None and exchange.clip.reference == exchange.says and exchange.answer for one in spoken for exchange in one.exchanges)
    halves = [conversations(Path("demonstration"), half=half) for half in ("search", "comparison")]
    assert [len(half) >= 5 for half in halves] == [True, True]
    assert not {one.name for one in halves[0]} & {one.name for one in halves[1]}
    assert all(exchange.clip is None for half in halves for one in half for exchange in one.exchanges)
