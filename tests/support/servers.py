"""Test servers that speak the two protocols with set delays, on loopback, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.metrics import DEFAULT_PAIR
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.stages import background_stages, turn_stages
from tune_gpu.workload.traffic import Traffic


@dataclass
class Behaviour:
    """How the servers answer."""

    stt_s: float = 0.0
    stt_text: str = "hello world"
    stt_status: int = 200
    stt_body: str | None = None
    stt_one_at_a_time: bool = False
    stt_at_once: int = 0
    """Transcriptions that are under way, and the most that were."""
    stt_most_at_once: int = 0
    first_token_s: float = 0.0
    token_s: float = 0.0
    llm_one_at_a_time: bool = False
    llm_status: int = 200
    stop_after: int | None = None
    """Tokens after which the stream breaks off."""
    most_tokens: int | None = None
    """An answer ends properly after so many, as vLLM's does where the context is full."""
    token_text: str = "x"
    garbage: bool = False
    empty: bool = False
    prompts: list[str] = field(default_factory=list)
    salts: list[str | None] = field(default_factory=list)
    """Of the prefix cache, as each completion asked for."""


def _app(behaviour: Behaviour) -> web.Application:
    turn, llm_turn = asyncio.Lock(), asyncio.Lock()

    async def transcribe(request: web.Request) -> web.Response:
        form = await request.post()
        assert isinstance(form["file"], web.FileField)
        behaviour.stt_at_once += 1
        behaviour.stt_most_at_once = max(behaviour.stt_at_once, behaviour.stt_most_at_once)
        try:
            await take_time()
        finally:
            behaviour.stt_at_once -= 1
        if behaviour.stt_body is not None:
            return web.Response(text=behaviour.stt_body, content_type="application/json")
        return web.json_response({"text": behaviour.stt_text, "compute_s": behaviour.stt_s}, status=behaviour.stt_status)

    async def take_time() -> None:
        if behaviour.stt_one_at_a_time:
            async with turn:
                await asyncio.sleep(behaviour.stt_s)
        else:
            await asyncio.sleep(behaviour.stt_s)

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        behaviour.prompts.append(body["prompt"])
        behaviour.salts.append(body.get("cache_salt"))
        if behaviour.llm_status != 200:
            return web.json_response({"error": "no"}, status=behaviour.llm_status)
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        if behaviour.garbage:
            await reply.write(b"data: {not json}\n\n")
            return reply
        async with llm_turn if behaviour.llm_one_at_a_time else contextlib.nullcontext():
            await asyncio.sleep(behaviour.first_token_s)
        n_tokens = 0 if behaviour.empty else min(body["max_tokens"], behaviour.most_tokens or body["max_tokens"])
        for number in range(n_tokens):
            if number:
                await asyncio.sleep(behaviour.token_s)
            if number == behaviour.stop_after:
                assert request.transport is not None
                request.transport.close()
                return reply
            await reply.write(b"data: " + json.dumps({"choices": [{"text": behaviour.token_text}]}).encode() + b"\n\n")
        usage = {"choices": [], "usage": {"completion_tokens": n_tokens}}
        await reply.write(b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n")
        return reply

    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/v1/audio/transcriptions", transcribe), web.post("/v1/completions", complete)])
    return app


@contextmanager
def servers(behaviour: Behaviour) -> Iterator[Traffic]:
    """Both protocols on one port, for as long as the block, and the default pair's traffic on them, with background requests."""
    stages = turn_stages(None, DEFAULT_PAIR)
    background = background_stages(WorkloadSettings(background_rate_per_s=1.0), DEFAULT_PAIR, stages)
    with serving(_app(behaviour)) as url:
        yield Traffic(stages, {"vllm": Endpoint(url, "key", "model"), "whisper": Endpoint(url, "key")}, background=background)


@contextmanager
def serving(app: web.Application, *, handler_cancellation: bool = False) -> Iterator[str]:
    """Serve an application on loopback, in a thread of its own, for as long as the block. Yield its address.

    With `handler_cancellation` a handler is cancelled when its client closes the stream.
    """
    ready = threading.Event()
    state: dict[str, object] = {}

    async def serve() -> None:
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=handler_cancellation)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stop = asyncio.Event()
        state.update(loop=asyncio.get_running_loop(), stop=stop, port=runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{state['port']}"
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)  # type: ignore[attr-defined]
        thread.join()
