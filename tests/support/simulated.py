"""A simulated assistant with known truth: an LLM, speech to text, synthesis and embeddings on loopback, which log what they were asked.

It shares nothing with the load generator: it renders prompts by a template of its own, counts blocks of characters in a prefix cache of its own, and
reads a clock of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.servers import serving

BLOCK = 16
"""Characters of a block of the prefix cache."""
ENDLESS = "(endless)"
"""A prompt with this at its end is answered with one sentence, and then with nothing until its client closes the stream."""
SENTENCE = "This is one whole sentence. "


@dataclass
class Asked:
    """A request as the server saw it."""

    path: str
    body: Mapping[str, Any]
    arrived: float
    """When it arrived, in seconds of the server's clock, like all times here."""
    text: str = ""
    """The prompt as rendered."""
    hit: int = 0
    """Blocks that the prefix cache had."""
    first: float = 0.0
    ended: float = 0.0
    sent: int = 0
    """Tokens."""
    cancelled: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])


@dataclass
class Simulated:
    """The server's script, and its log."""

    first_token_s: float = 0.0
    token_s: float = 0.0
    stt_s: float = 0.0
    transcript: str = "what was heard"
    audio_s: float = 0.05
    """Length of a spoken sentence."""
    context: int | None = None
    """Most characters of a prompt."""
    fails: set[str] = field(default_factory=set)
    """Paths that are answered with 500."""
    log: list[Asked] = field(default_factory=list)
    cached: dict[str | None, set[str]] = field(default_factory=dict)
    """Salt -> beginnings of prompts, in whole blocks."""

    def chats(self) -> list[Asked]:
        """Return the requests to the LLM in the order of arrival."""
        return [asked for asked in self.log if asked.path == "/v1/chat/completions"]

    def of(self, path: str) -> list[Asked]:
        """Return the requests to another service."""
        return [asked for asked in self.log if asked.path == path]

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve on loopback within the block. Yield the address."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_post("/v1/audio/speech", self._speak)
        app.router.add_post("/v1/embeddings", self._embed)
        with serving(app, handler_cancellation=True) as url:
            yield url

    def _arrived(self, request: web.Request, body: Mapping[str, Any]) -> Asked:
        asked = Asked(request.path, body, time.perf_counter())
        self.log.append(asked)
        if request.path in self.fails:
            raise web.HTTPInternalServerError
        return asked

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = self._arrived(request, await request.json())
        asked.text = rendered(asked.body)
        if self.context is not None and len(asked.text) > self.context:
            return web.json_response({"error": {"message": f"This model's maximum context length is {self.context} tokens.", "code": 400}}, status=400)
        asked.hit = self._look_up(asked)
        try:
            return await self._answer(request, asked)
        except (asyncio.CancelledError, ConnectionError):
            asked.cancelled = True
            raise
        finally:
            asked.ended = time.perf_counter()

    def _look_up(self, asked: Asked) -> int:
        known = self.cached.setdefault(asked.body.get("cache_salt"), set())
        begins = [asked.text[: BLOCK * number] for number in range(1, len(asked.text) // BLOCK + 1)]
        hit = next((at for at, begin in enumerate(begins) if begin not in known), len(begins))
        known.update(begins)
        return hit

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await asyncio.sleep(self.first_token_s)
        words = SENTENCE.split()
        endless = asked.text.endswith(ENDLESS)
        asked.first = time.perf_counter()
        for number in range(len(words) if endless else asked.body["max_tokens"]):
            if number:
                await asyncio.sleep(self.token_s)
            asked.sent += 1
            await reply.write(_event({"choices": [{"index": 0, "delta": {"content": words[number % len(words)] + " "}}]}))
        if endless:
            await asyncio.sleep(60.0)
        counted = {"completion_tokens": asked.sent, "prompt_tokens": len(asked.text), "prompt_tokens_details": {"cached_tokens": asked.hit * BLOCK}}
        await reply.write(_event({"choices": [], "usage": counted}) + b"data: [DONE]\n\n")
        return reply

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self._arrived(request, {"model": form["model"]})
        await asyncio.sleep(self.stt_s)
        return web.json_response({"text": self.transcript})

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        asked = self._arrived(request, await request.json())
        asked.ended = time.perf_counter()
        return web.Response(body=spoken(self.audio_s), content_type="audio/wav")

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        self._arrived(request, await request.json())
        return web.json_response({"data": [{"embedding": [0.5, 0.25]}]})


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def rendered(body: Mapping[str, Any]) -> str:
    """Return a request's prompt by the server's own template. It ends with the words of the last message."""
    tools = f"tools {json.dumps(body['tools'])}|" if body.get("tools") else ""
    parts = [f"{m['role']}:{json.dumps(m['tool_calls']) if m.get('tool_calls') else ''}{m['content']}" for m in body["messages"]]
    return tools + "|".join(parts)


def spoken(seconds: float) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * round(16_000 * seconds)))
    return content.getvalue()
