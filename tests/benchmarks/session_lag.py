"""Measure what the load generator adds to latencies while it holds many sessions on one core: `python -m tests.benchmarks.session_lag`.

The server is another process, on another core where there is one. It writes into each token when the request arrived and when the token was
written, by the clock that both processes share. So three delays are seen from outside: from the due time to the arrival at the server, from the
writing of a token to its record in the generator, and by how much the generator woke up late. On an idle machine their sum at p99 is to be 1 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

import numpy as np
from aiohttp import web

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.sessions.drive import run_sessions
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn, Role, SessionWindow
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.window import WindowResult

_FIRST_TOKEN_S, _TOKEN_S, _TOKENS = 0.15, 0.02, 24
_SYSTEM = " ".join(f"rule {number} of this house holds." for number in range(250))
_TURNS = 50


def main() -> None:
    """Print the delays."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sessions", type=int, default=200)
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--think-s", type=float, default=4.0)
    chosen = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, cores[-1]), daemon=True)
    server.start()
    os.sched_setaffinity(0, {cores[0]})
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        traffic = Traffic((Stage("llm", "llm", Protocol.CHAT),), {"llm": Endpoint(url, "", "m")})
        settings = WorkloadSettings(max_inflight_turns=chosen.sessions)
        plan = planned(chosen.sessions, chosen.think_s)
        used = time.process_time()
        result = run_sessions(plan, traffic, settings, Habits(listen_wpm=0.0), seconds=chosen.seconds)
        used = time.process_time() - used
    finally:
        server.kill()
        server.join()
    report(result, used / result.seconds, len(cores))


def planned(sessions: int, think_s: float) -> SessionWindow:
    """Return callers whose first turns are spread over a pause, with a system prompt of some 1,500 tokens."""
    system = (Message(Role.SYSTEM, _SYSTEM),)
    turns = tuple(PlannedTurn(number, "What is the rule for today?", None, "It is as it was.", _TOKENS, think_s) for number in range(_TURNS))
    return SessionWindow([PlannedSession(f"s{at}", "home", think_s * at / sessions, system, (), (), turns) for at in range(sessions)])


def report(result: WindowResult, load: float, n_cores: int) -> None:
    """Print what was measured."""
    failed = [turn.error for turn in result.turns if turn.error]
    arrived, received = [], []
    for turn in result.turns:
        for answer in turn.answers:
            times = [tuple(map(float, token.split(":"))) for token in answer.text.split()]
            arrived += [times[0][0] - answer.due] if times else []
            received += [at - written for at, (_, written) in zip(answer.chunk_times, times, strict=False)]
    print(f"{len(result.turns)} turns, {len(received)} tokens, {len(failed)} failed; {load:.0%} of one core used; {n_cores} cores, load {os.getloadavg()[0]:.1f}")
    for name, seconds in (("woke up late", [ms / 1e3 for ms in result.lag_ms]), ("due to arrival", arrived), ("written to recorded", received)):
        p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
        print(f"{name:<20} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms")
    print(f"added at p99         {1e3 * (np.percentile(arrived, 99) + np.percentile(received, 99)):.3f} ms (1 ms wanted, on an idle machine)")


def serve(connection: Connection, core: int) -> None:
    """Answer chats on a core of its own until the process is killed."""
    os.sched_setaffinity(0, {core})

    async def answer(request: web.Request) -> web.StreamResponse:
        arrived = time.monotonic()
        body = await request.json()
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await asyncio.sleep(_FIRST_TOKEN_S)
        for _ in range(body["max_tokens"]):
            content = f"{arrived:.6f}:{time.monotonic():.6f} "
            await reply.write(b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": content}}]}).encode() + b"\n\n")
            await asyncio.sleep(_TOKEN_S)
        await reply.write(b'data: {"choices": [], "usage": {"completion_tokens": %d}}\n\ndata: [DONE]\n\n' % body["max_tokens"])
        return reply

    async def run() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        connection.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
