"""Small servers for one answer each: what a healthy server sends, and every way in which an answer can fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

from tests.support.servers import serving

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.contextmanager
def answering(answer: Answer, received: list[dict[str, Any]] | None = None) -> Iterator[str]:
    """Serve this answer to every request, and note what was asked for."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if received is not None:
            body = await request.json() if request.content_type == "application/json" else dict(await request.post())
            received.append({"path": request.path, "headers": dict(request.headers), "body": body})
        else:
            await request.read()
        return await answer(request)

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/{path:.*}", handle)
    with serving(app) as url:
        yield url


@contextlib.contextmanager
def nothing_listens() -> Iterator[str]:
    """Yield an address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def status(code: int) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "no"}, status=code)

    return answer


def plain(body: str | bytes, content_type: str = "application/json") -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body.encode() if isinstance(body, str) else body, content_type=content_type)

    return answer


def parts(*sent: bytes, content_type: str = "text/event-stream", cut: bool = False, endless: bool = False) -> Answer:
    """Answer in parts; the connection breaks off after them, or the last is sent again and again."""

    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": content_type})
        await reply.prepare(request)
        for part in sent:
            await reply.write(part)
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            while endless:
                await reply.write(sent[-1])
        if cut:
            assert request.transport is not None
            request.transport.close()
        return reply

    return answer


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60.0)
    return web.Response()


def events(*chunks: dict[str, Any] | str, done: bool = True) -> list[bytes]:
    """Return server-sent events."""
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return [f"data: {text}\n\n".encode() for text in (*texts, *(["[DONE]"] if done else []))]


def wav(seconds: float, rate_hz: int = 24_000, channels: int = 1, sample_bytes: int = 2, size: int | None = None, before: bytes = b"") -> bytes:
    """Return a WAV file of silence. `size` is what its header declares; `before` are blocks before the audio."""
    audio = bytes(round(seconds * rate_hz) * channels * sample_bytes)
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * sample_bytes, channels * sample_bytes, 8 * sample_bytes)
    declared = len(audio) if size is None else size
    head = b"RIFF" + struct.pack("<I", min(36 + declared, 0xFFFFFFFF)) + b"WAVE" + b"fmt " + struct.pack("<I", 16) + form + before
    return head + b"data" + struct.pack("<I", declared) + audio


def every_protocol(transcript: str = "hello world", vector: int = 3, speech_s: float = 0.2, slow_s: float = 0.0) -> Answer:
    """Answer requests of every protocol, each after `slow_s` seconds."""
    chunk = {"choices": [{"index": 0, "text": "x", "delta": {"content": "x"}}]}

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(slow_s)
        if request.path == "/v1/audio/transcriptions":
            return web.json_response({"text": transcript})
        if request.path == "/v1/embeddings":
            return web.json_response({"data": [{"embedding": [0.5] * vector}]})
        if request.path == "/v1/audio/speech":
            return await parts(wav(speech_s), content_type="audio/wav")(request)
        n_tokens = (await request.json())["max_tokens"]
        return await parts(*events(*[chunk] * n_tokens, {"choices": [], "usage": {"completion_tokens": n_tokens}}))(request)

    return answer
