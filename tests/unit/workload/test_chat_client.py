"""The chat client with whole conversations: what is sent, what the server reports, refusals of its context, and callers who hang up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import web

from tests.support.servers import serving
from tests.unit.workload.servers import Answer, answering, events, parts, wav
from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.clients.call import Call
from tune_gpu.workload.clients.chat import Chat, chat
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.hangup import Hangup
from tune_gpu.workload.clients.speech import speak
from tune_gpu.workload.sessions.values import Message, Role
from tune_gpu.workload.window import client_session

CALL = {"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{}"}}
TALK = (
    Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Light!"), Message(Role.ASSISTANT, "", (CALL,)), Message(Role.TOOL, "on", tool_call_id="c1"),
)  # fmt: skip
TOOL = {"type": "function", "function": {"name": "light", "parameters": {}}}


def chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def usage(n_tokens: int, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"completion_tokens": n_tokens, **more}}


def asked(url: str, content: Any, client: Any = chat, **change: Any) -> Any:
    async def drive() -> Any:
        async with client_session() as session:
            return await client(Call(session, Endpoint(url, "key", "model"), time.monotonic(), 20.0, "llm", max_tokens=9, **change), content)

    return asyncio.run(drive())


def answered(answer: Answer, content: Chat, received: list[dict[str, Any]] | None = None, **change: Any) -> GenerationSample:
    with answering(answer, received) as url:
        sample: GenerationSample = asked(url, content, **change)
        return sample


def test_a_conversation_is_sent_as_openais_clients_send_it() -> None:
    received: list[dict[str, Any]] = []
    answered(parts(*events(chunk("a"), usage(1))), Chat(TALK, (TOOL,), 1), received)
    body = received[0]["body"]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Light!"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "on", "tool_call_id": "c1"},
    ]
    assert (body["tools"], body["tool_choice"]) == ([TOOL], "none")


def test_an_answer_of_the_plans_length_may_end_neither_before_nor_after() -> None:
    received: list[dict[str, Any]] = []
    sample = answered(parts(*events(chunk("a"), usage(1))), Chat(TALK, answer_tokens=3), received)
    assert {key: received[0]["body"].get(key) for key in ("max_tokens", "min_tokens", "ignore_eos")} == {"max_tokens": 3, "min_tokens": 3, "ignore_eos": True}
    assert sample.error == "short_answer"


def test_an_answer_of_natural_length_ends_where_the_model_ends_it() -> None:
    received: list[dict[str, Any]] = []
    sample = answered(parts(*events(chunk("a"), usage(1))), Chat(TALK), received)
    assert received[0]["body"]["max_tokens"] == 9
    assert not {"min_tokens", "ignore_eos", "tools", "tool_choice"} & set(received[0]["body"])
    assert (sample.error, sample.text) == (None, "a")


def test_the_sample_has_the_servers_count_of_the_prompt() -> None:
    talk = Chat(TALK, answer_tokens=1)
    sample = answered(parts(*events(chunk("a"), usage(1, prompt_tokens=40, prompt_tokens_details={"cached_tokens": 32}))), talk)
    assert (sample.prompt_tokens, sample.cached_tokens) == (40, 32)
    unreported = answered(parts(*events(chunk("a"), usage(1, prompt_tokens=40, prompt_tokens_details=None))), talk)
    assert (unreported.prompt_tokens, unreported.cached_tokens) == (40, None)
    assert answered(parts(*events(chunk("a"), usage(1, prompt_tokens=-1))), talk).error == "bad_payload"


def test_the_call_of_a_tool_counts_as_tokens_of_the_answer() -> None:
    called = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "light"}}]}}]}
    sample = answered(parts(*events(called, called, usage(2))), Chat(TALK, answer_tokens=2))
    assert (sample.error, len(sample.chunk_times), sample.text) == (None, 2, "")


TOO_LONG = [
    (400, {"error": {"message": "This model's maximum context length is 768 tokens. However, your prompt contains 901 input tokens", "code": 400}}),
    (400, {"error": {"message": "The decoder prompt (length 768) plus the number of requested output tokens (at least 1) is longer than the maximum model length of 768."}}),
    (400, {"object": "error", "message": "min_tokens must be less than or equal to max_tokens=7, got 24.", "code": 400}),
    (400, {"error": {"message": "Please reduce your prompt.", "code": "context_length_exceeded"}}),
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error"}}),
    (500, {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}),
    (400, {"object": "error", "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens).", "code": 400}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000", "error_type": "validation"}),
]


@pytest.mark.parametrize(("status", "body"), TOO_LONG)
def test_a_context_too_long_has_its_own_error_for_every_server(status: int, body: dict[str, Any]) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    assert answered(refuse, Chat(TALK, answer_tokens=2)).error == "context_too_long"
    streamed = parts(*events(chunk("a"), {"error": body.get("error", body)}))
    assert answered(streamed, Chat(TALK, answer_tokens=2)).error == "context_too_long"


@pytest.mark.parametrize(("status", "body"), [(400, '{"error": {"message": "temperature must be a number"}}'), (503, TOO_LONG[0][1]), (400, "x" * 2**18), (400, "[" * 9999)])
def test_another_refusal_keeps_its_status(status: int, body: Any) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body if isinstance(body, str) else json.dumps(body), status=status)

    assert answered(refuse, Chat(TALK, answer_tokens=2)).error == f"http_{status}"


def test_the_parts_of_an_answer_are_seen_as_they_arrive() -> None:
    """The second part is sent only after the first was seen."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        for number, event in enumerate(events(chunk("One. "), chunk("Two."), usage(2))):
            await reply.write(event)
            while number == 0 and not seen:
                await asyncio.sleep(0.001)
        return reply

    sample = answered(answer, Chat(TALK, answer_tokens=2), on_text=seen.append)
    assert (sample.error, seen, sample.text) == (None, ["One. ", "Two."], "One. Two.")


@pytest.mark.parametrize("before", [False, True])
def test_a_caller_who_hangs_up_closes_the_stream_and_nothing_failed(before: bool) -> None:
    """The server is blocked until it notices that the stream is closed."""
    closed: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(events(chunk("One "), done=False)[0])
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            closed.append(request.path)
            raise
        return reply

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    hangup, pulse = Hangup(), ActivityTracker()
    with serving(app, handler_cancellation=True) as url:

        async def drive() -> GenerationSample:
            if before:
                hangup.now()
            async with client_session() as session:
                call = Call(session, Endpoint(url, "", "model"), time.monotonic(), 20.0, "llm", pulse, hangup=hangup, on_text=lambda _text: hangup.now())
                return await chat(call, Chat(TALK, answer_tokens=9))

        sample = asyncio.run(drive())
        while not before and not closed:
            time.sleep(0.001)
    assert (sample.error, sample.cancelled, sample.latency_ms) == (None, True, None)
    assert (sample.text, sample.n_tokens) == (("", 0) if before else ("One ", 1))
    assert (sample.ttft_ms is None) == before
    assert pulse.waiting == {"llm": 0}


def test_hanging_up_after_the_end_changes_nothing() -> None:
    hangup = Hangup()
    sample = answered(parts(*events(chunk("a"), usage(1))), Chat(TALK, answer_tokens=1), hangup=hangup)
    hangup.now()
    assert (sample.error, sample.cancelled) == (None, False)


def test_speech_of_which_nothing_more_is_wanted_is_cancelled() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "audio/wav"})
        await reply.prepare(request)
        await reply.write(wav(0.5)[:5000])
        hangup_soon()
        await asyncio.sleep(60.0)
        return reply

    app, hangup = web.Application(), Hangup()
    loops: list[asyncio.AbstractEventLoop] = []

    def hangup_soon() -> None:
        loops[0].call_soon_threadsafe(hangup.now)

    app.router.add_post("/v1/audio/speech", answer)
    with serving(app, handler_cancellation=True) as url:

        async def speak_until(call: Call, text: str) -> Any:
            loops.append(asyncio.get_running_loop())
            return await speak(call, text)

        sample = asked(url, "hello", speak_until, hangup=hangup)
    assert (sample.error, sample.cancelled, sample.latency_ms) == (None, True, None)
