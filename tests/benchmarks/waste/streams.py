"""The load generator's own delay: chunk by chunk, between the server's write and the client's note of it, on the one monotonic clock."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tune_gpu.services.running import Endpoint
from tune_gpu.workload.clients.call import Call
from tune_gpu.workload.clients.completion import complete
from tune_gpu.workload.window import client_session

_CHUNK = b'data: {"id":"x","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" word","finish_reason":null}]}\n\n'


def serve(pipe: Connection, every_s: float, core: int) -> None:
    """A streaming server that notes when it writes; answers `times` over the pipe."""
    os.sched_setaffinity(0, {core})
    sent: dict[str, list[float]] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        body = json.loads(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        notes = sent.setdefault(body["prompt"], [])
        due = time.monotonic() + random.random() * every_s
        for _ in range(body["max_tokens"]):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            notes.append(time.monotonic())
            writer.write(_CHUNK)
            due += every_s
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send(sent)

    asyncio.run(main())


def measure(streams: int, tokens: int, every_s: float) -> dict[str, Any]:
    """Added latency in ms (percentiles over all chunks) and the share of its core that the generator took."""
    ours, theirs = multiprocessing.Pipe()
    cores = sorted(os.sched_getaffinity(0))
    server = multiprocessing.get_context("fork").Process(target=serve, args=(theirs, every_s, cores[-1]))
    server.start()
    port = ours.recv()
    os.sched_setaffinity(0, {cores[0]})
    endpoint = Endpoint(f"http://127.0.0.1:{port}", "k", "m")

    async def drive() -> dict[str, list[float]]:
        async with client_session() as session:

            async def one(name: str) -> tuple[str, list[float]]:
                await asyncio.sleep(random.random())  # streams begin apart from one another, as callers do
                sample = await complete(Call(session, endpoint, time.monotonic(), 600, max_tokens=tokens), name)
                assert sample.error is None, sample.error
                return name, sample.chunk_times

            return dict(await asyncio.gather(*(one(str(i)) for i in range(streams))))

    began, cpu = time.monotonic(), time.process_time()
    received = asyncio.run(drive())
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    os.sched_setaffinity(0, cores)
    ours.send("end")
    sent = ours.recv()
    server.join()
    added = 1e3 * np.concatenate([np.array(received[name]) - np.array(sent[name]) for name in received])
    # When all streams are open: the middle of each, so that the opening of 200 connections is told apart.
    middle = 1e3 * np.concatenate([(np.array(received[n]) - np.array(sent[n]))[tokens // 3 : 2 * tokens // 3] for n in received])
    return {
        "streams": streams, "chunks": len(added), "chunks_per_s": len(added) / wall, "core_share": cpu / wall, "load": os.getloadavg(),
        **{f"added_p{q}_ms": round(float(np.percentile(added, q)), 3) for q in (50, 90, 99)},
        "added_p99_ms_all_open": round(float(np.percentile(middle, 99)), 3),
    }  # fmt: skip
