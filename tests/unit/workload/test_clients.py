"""Each client against small servers: what it measures, and that every failure is a value and never a latency."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.workload.servers import Answer, answering, events, nothing_listens, parts, plain, silent, status, wav
from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.clients.call import Audio, Call, Sample
from tune_gpu.workload.clients.chat import chat
from tune_gpu.workload.clients.completion import complete
from tune_gpu.workload.clients.embedding import EmbeddingSample, embed
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.speech import SpeechSample, speak
from tune_gpu.workload.clients.transcription import TranscriptionSample, transcribe
from tune_gpu.workload.window import client_session

Client = Callable[[Call, Any], Awaitable[Sample]]
CLIP = Audio(wav(0.1, 16_000), 0.1)
CLIENTS: dict[str, tuple[Client, Any]] = {
    "completion": (complete, "hello"), "chat": (chat, "hello"), "transcription": (transcribe, CLIP), "speech": (speak, "hello"), "embedding": (embed, "hello"),
}  # fmt: skip


def asked(name: str, url: str, timeout_s: float = 20.0, times: int = 1, pulse: ActivityTracker | None = None, **change: Any) -> Any:
    """Return the last sample of so many requests, one after another."""
    client, content = CLIENTS[name]

    async def drive() -> Sample:
        sizes: dict[str, int] = {}
        async with client_session() as session:
            for _ in range(times):
                call = Call(
                    session, Endpoint(url, change.get("key", "key"), change.get("model", "model"), change.get("ignore_eos", True)), time.monotonic(), timeout_s, "service",
                    pulse or ActivityTracker(), change.get("cache_salt"), 2, change.get("voice"), sizes,
                )  # fmt: skip
                sample = await client(call, content)
        return sample

    return asyncio.run(drive())


def answered(name: str, answer: Answer, received: list[dict[str, Any]] | None = None, **change: Any) -> Any:
    with answering(answer, received) as url:
        return asked(name, url, **change)


def text_chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text}]}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


LONG = "a" * 50_000
USAGE = {"choices": [], "usage": {"completion_tokens": 2}}
VECTOR = json.dumps({"data": [{"embedding": [0.1, -2, 3e-5]}]})
GOOD: dict[str, Answer] = {
    "completion": parts(*events(text_chunk("a"), text_chunk("b"), USAGE)),
    "chat": parts(*events(delta(role="assistant", content=""), delta(content="a"), delta(content="b"), USAGE)),
    "transcription": plain(json.dumps({"text": " hello ", "compute_s": 0.05})),
    "speech": parts(wav(0.5), content_type="audio/wav"),
    "embedding": plain(VECTOR),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_an_answer_has_its_times_in_order_and_an_output(name: str) -> None:
    pulse = ActivityTracker()
    sample = answered(name, GOOD[name], pulse=pulse)
    assert sample.error is None
    assert sample.due <= sample.first_output <= sample.done
    assert sample.latency_ms == pytest.approx((sample.done - sample.due) * 1e3)
    assert sample.output is not None
    assert pulse.waiting == {"service": 0}
    assert sample.due <= pulse.marked["service"] <= time.monotonic()


@pytest.mark.parametrize(("name", "path"), [
    ("completion", "/v1/completions"), ("chat", "/v1/chat/completions"), ("transcription", "/v1/audio/transcriptions"), ("speech", "/v1/audio/speech"),
    ("embedding", "/v1/embeddings"),
])  # fmt: skip
def test_a_request_is_what_openais_clients_send(name: str, path: str) -> None:
    received: list[dict[str, Any]] = []
    answered(name, GOOD[name], received, cache_salt="salt", voice="heart")
    answered(name, GOOD[name], received, key="", model="")
    with_key, without = received
    assert with_key["path"] == path
    assert with_key["headers"]["Authorization"] == "Bearer key"
    assert "Authorization" not in without["headers"]
    body = with_key["body"]
    assert body["model"] == "model"
    assert without["body"]["model"] == ("whisper" if name == "transcription" else "")
    if name in ("completion", "chat"):
        assert (body["max_tokens"], body["ignore_eos"], body["stream"], body["cache_salt"]) == (2, True, True, "salt")
        assert "cache_salt" not in without["body"]
    if name == "chat":
        assert body["messages"] == [{"role": "user", "content": "hello"}]
    if name == "speech":
        assert (body["input"], body["voice"], body["response_format"]) == ("hello", "heart", "wav")
        assert "voice" not in without["body"]
    if name == "embedding":
        assert (body["input"], body["encoding_format"], body["cache_salt"]) == ("hello", "float", "salt")


@pytest.mark.parametrize("name", ["completion", "chat", "embedding"])
def test_a_server_with_openais_fields_alone_gets_no_other(name: str) -> None:
    received: list[dict[str, Any]] = []
    answered(name, GOOD[name], received, cache_salt="salt", ignore_eos=False)
    assert received[0]["body"].keys().isdisjoint({"ignore_eos", "min_tokens", "cache_salt"})


def ended(reason: str, n_tokens: int, usage: bool = True) -> Answer:
    """Answer a chat with so many tokens, and say why it ends."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return parts(*events(*[delta(content="a")] * n_tokens, last, *([{"choices": [], "usage": {"completion_tokens": n_tokens}}] if usage else [])))


@pytest.mark.parametrize("usage", [True, False])
def test_an_answer_that_its_model_ended_is_marked_and_no_failure(usage: bool) -> None:
    """Of two tokens that were asked for. A server that reports no number of tokens is judged by its chunks."""
    early, whole = (answered("chat", ended("stop", n_tokens, usage), ignore_eos=False) for n_tokens in (1, 2))
    assert (early.error, early.ended_early, early.n_tokens) == (None, True, 1)
    assert (whole.error, whole.ended_early) == (None, False)


def test_an_answer_that_the_context_cut_is_a_failure_in_either_case() -> None:
    assert [answered("chat", ended("length", 1), ignore_eos=known).error for known in (True, False)] == ["short_answer"] * 2
    assert answered("chat", ended("stop", 1)).error == "short_answer", "the server does not know `ignore_eos`, and must be set so"


FAILURES: list[tuple[str, Answer, str]] = [
    *((name, status(500), "http_500") for name in CLIENTS),
    *((name, status(401), "http_401") for name in CLIENTS),
    *((name, plain(""), "bad_payload") for name in ("transcription", "embedding")),
    *((name, plain("not json"), "bad_payload") for name in ("transcription", "embedding")),
    *((name, plain("[]"), "bad_payload") for name in ("transcription", "embedding")),
    *((name, plain("[" * 100_000), "bad_payload") for name in ("transcription", "embedding")),
    *((name, parts(b'{"te', content_type="application/json", cut=True), "connection") for name in ("transcription", "embedding")),
    *((name, parts(b" " * 2**20, content_type="application/json", endless=True), "bad_payload") for name in ("transcription", "embedding")),
    *((name, parts(*events("{not json")), "bad_payload") for name in ("completion", "chat")),
    *((name, parts(*events("[]")), "bad_payload") for name in ("completion", "chat")),
    *((name, parts(*events({"choices": [7]})), "bad_payload") for name in ("completion", "chat")),
    *((name, parts(*events({"choices": [], "usage": {"completion_tokens": -1}})), "bad_payload") for name in ("completion", "chat")),
    *((name, parts(*events({"error": {"message": "no"}})), "stream_error") for name in ("completion", "chat")),
    *((name, parts(*events()), "empty_answer") for name in ("completion", "chat")),
    *((name, plain(json.dumps({"choices": [{"text": "whole"}]})), "truncated_stream") for name in ("completion", "chat")),
    *((name, parts(b"x" * 2**20, endless=True), "bad_payload") for name in ("completion", "chat")),
    ("completion", parts(*events(text_chunk("a"), done=False)), "truncated_stream"),
    ("completion", parts(*events(text_chunk("a"), done=False), cut=True), "truncated_stream"),
    ("completion", parts(*events(text_chunk(LONG), done=False), endless=True), "bad_payload"),
    ("completion", parts(*events(text_chunk("a"), {"choices": [], "usage": {"completion_tokens": 1}})), "short_answer"),
    ("chat", parts(*events(delta(content="a"), done=False)), "truncated_stream"),
    ("chat", parts(*events(delta(content="a"), done=False), cut=True), "truncated_stream"),
    ("chat", parts(*events(delta(content=LONG), done=False), endless=True), "bad_payload"),
    ("chat", parts(*events(delta(content="a"), {"choices": [], "usage": {"completion_tokens": 1}})), "short_answer"),
    ("chat", parts(*events(delta(role="assistant", content=""))), "empty_answer"),
    ("chat", parts(*events({"choices": [{"text": "of a completion"}]})), "bad_payload"),
    ("transcription", plain('{"text": 7}'), "bad_payload"),
    ("transcription", plain('{"text": "a", "compute_s": -1}'), "bad_payload"),
    ("transcription", plain('{"text": "a", "compute_s": NaN}'), "bad_payload"),
    ("transcription", plain('{"text": " "}'), "empty_transcript"),
    ("embedding", plain('{"data": []}'), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": []}]}'), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": [1.0, NaN]}]}'), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": [1e999]}]}'), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": [' + "9" * 400 + "]}]}"), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": [true]}]}'), "bad_payload"),
    ("embedding", plain('{"data": [{"embedding": "AACAPw=="}]}'), "bad_payload"),
    ("speech", plain("", "audio/wav"), "empty_audio"),
    ("speech", plain(wav(0.0), "audio/wav"), "empty_audio"),
    ("speech", plain(wav(0.1)[:30], "audio/wav"), "bad_payload"),
    ("speech", plain(b"RIFF\0\0\0\0AVI LIST", "audio/wav"), "bad_payload"),
    ("speech", plain(wav(0.1, rate_hz=0), "audio/wav"), "bad_payload"),
    ("speech", plain(wav(0.1, channels=0), "audio/wav"), "bad_payload"),
    ("speech", plain(b"RIFF\0\0\0\0WAVEdata\x04\0\0\0\0\0\0\0", "audio/wav"), "bad_payload"),
    ("speech", plain(b"ID3" + bytes(100), "audio/mpeg"), "bad_payload"),
    ("speech", plain('{"error": "no voice"}'), "bad_payload"),
    ("speech", parts(wav(0.5)[:5000], content_type="audio/wav", cut=True), "truncated_stream"),
    ("speech", parts(wav(0.0), bytes(2**20), content_type="audio/wav", endless=True), "bad_payload"),
    ("speech", parts(b"RIFF\0\0\0\0WAVE", b"junk\0\0\0\0" * 2**16, content_type="audio/wav", endless=True), "bad_payload"),
]


@pytest.mark.parametrize(("name", "answer", "error"), FAILURES)
def test_a_request_that_fails_is_a_value_and_never_a_latency(name: str, answer: Answer, error: str) -> None:
    sample = answered(name, answer)
    assert sample.error == error
    assert (sample.latency_ms, sample.output) == (None, None)
    for own in ("ttft_ms", "rtf", "first_audio_ms"):
        assert getattr(sample, own, None) is None


@pytest.mark.parametrize("name", CLIENTS)
def test_no_answer_in_time_is_a_timeout_that_counts_from_the_due_time(name: str) -> None:
    sample = answered(name, silent, timeout_s=0.1)
    assert (sample.error, sample.latency_ms) == ("timeout", None)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_is_gone_is_a_failed_connection(name: str) -> None:
    with nothing_listens() as url:
        pulse = ActivityTracker()
        assert asked(name, url, pulse=pulse).error == "connection"
    assert pulse.waiting == {"service": 0}


def test_a_first_chunk_with_the_role_alone_is_no_token() -> None:
    """vLLM sends it before its engine has done anything, so that a first token would come for free."""
    chunks = (delta(role="assistant", content=""), delta(reasoning="why "), delta(content=""), delta(content="b"))
    sample: GenerationSample = answered("chat", parts(*events(*chunks, {"choices": [], "usage": {"completion_tokens": 3}})))
    assert (sample.error, len(sample.chunk_times), sample.n_tokens) == (None, 3, 3)
    assert sample.output == "b", "without what the model thought"


@pytest.mark.parametrize(("chunk", "tokens"), [
    (delta(role="assistant"), 0), (delta(role="assistant", content=None), 0), (delta(), 0), (delta(role="assistant", content="a"), 1), (delta(content="a"), 1),
    (delta(content=""), 1), (delta(reasoning_content="a"), 1), (delta(reasoning="a", content=None), 1), (delta(tool_calls=[]), 0),
])  # fmt: skip
def test_a_chunk_of_a_chat_counts_if_it_carries_a_token(chunk: dict[str, Any], tokens: int) -> None:
    sample = answered("chat", parts(*events(chunk)))
    assert len(sample.chunk_times) == tokens


@pytest.mark.parametrize(("content", "content_type", "seconds"), [
    (wav(0.5), "audio/wav", 0.5),
    (wav(0.25, 16_000, channels=2), "audio/wav", 0.25),
    (wav(0.5, 8_000, sample_bytes=1), "audio/x-wav", 0.5),
    (wav(0.5, size=0xFFFFFFFF), "application/octet-stream", 0.5),
    (wav(0.5, size=0), "audio/wav", 0.5),
    (wav(0.5, size=2**31 - 1), "audio/wav", 0.5),
    (wav(0.5) + b"LIST\x04\0\0\0INFO", "audio/wav", 0.5),
    (wav(0.5, before=b"LIST\x05\0\0\0INFO!\0"), "audio/wav", 0.5),
    (bytes(24_000), "audio/pcm", 0.5),
    (bytes(16_000), "audio/L16; rate=8000; channels=2", 0.5),
])  # fmt: skip
def test_the_length_of_speech_is_read_from_what_was_sent(content: bytes, content_type: str, seconds: float) -> None:
    """A server that streams does not know the length when it writes the header."""
    halves = parts(content[:20], content[20:50], content[50:], content_type=content_type)
    sample: SpeechSample = answered("speech", halves)
    assert sample.error is None
    assert sample.audio_s == pytest.approx(seconds)
    assert sample.n_bytes in (len(content), len(content) - 44, len(content) - 56, len(content) - 58)
    assert sample.rtf is not None
    assert sample.latency_ms is not None
    assert sample.rtf == pytest.approx(sample.latency_ms / 1e3 / seconds)
    assert sample.output is not None
    assert sample.output.wav.startswith(b"RIFF")
    assert sample.output.seconds == sample.audio_s


def test_the_header_of_a_wav_file_is_no_audio() -> None:
    """A server may send it before it has computed anything."""
    began: list[float] = []

    async def answer(request: Any) -> Any:
        from aiohttp import web

        reply = web.StreamResponse(headers={"Content-Type": "audio/wav"})
        await reply.prepare(request)
        await reply.write(wav(0.5)[:44])
        await asyncio.sleep(0.05)
        began.append(time.monotonic())
        await reply.write(wav(0.5)[44:])
        return reply

    sample: SpeechSample = answered("speech", answer)
    assert sample.first_output is not None
    assert sample.first_output >= began[0]


def test_a_vector_of_another_size_than_the_first_is_malformed() -> None:
    sizes = iter([3, 3, 4])

    async def answer(request: Any) -> Any:
        from aiohttp import web

        return web.json_response({"data": [{"embedding": [0.5] * next(sizes)}]})

    with answering(answer) as url:
        assert asked("embedding", url, times=2).error is None
    sizes = iter([3, 3, 4])
    with answering(answer) as url:
        sample: EmbeddingSample = asked("embedding", url, times=3)
    assert (sample.error, sample.size) == ("bad_payload", 4)


def test_an_embedding_passes_its_text_on() -> None:
    sample: EmbeddingSample = answered("embedding", GOOD["embedding"])
    assert (sample.output, sample.size) == ("hello", 3)


def test_a_transcript_knows_how_long_it_was_computed() -> None:
    sample: TranscriptionSample = answered("transcription", GOOD["transcription"])
    assert (sample.text, sample.rtf) == ("hello", pytest.approx(0.5))
