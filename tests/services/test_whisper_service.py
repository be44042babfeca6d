"""The real Whisper service with real weights."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import av
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.services.conftest import PORTS
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.config.schema import AudioSettings, WorkloadSettings
from tune_gpu.metrics import DEFAULT_PAIR, RTF
from tune_gpu.services.decoding import MAX_BYTES
from tune_gpu.services.faster_whisper import transcriber
from tune_gpu.services.faster_whisper.api import build_app
from tune_gpu.services.faster_whisper.server import parse_arguments
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.faster_whisper.transcriber import Transcriber, load_model, read_audio
from tune_gpu.services.models import resolve_whisper
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.stages import turn_stages
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.window import run_window


def service(device: str = "cpu", **change: object) -> WhisperService:
    values = {"model": "tiny.en", "compute_type": "int8", "cpu_threads": 0, "cpu_cores": "0-1", **change}
    return WhisperService(WhisperSettings(**values), device=device, port_range=PORTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_it_understands_what_is_said(model: str) -> None:
    whisper = service(model=model)
    description = whisper.start()
    assert description["device"] == "cpu"
    assert "int8" in description["compute_type"]
    try:
        traffic = Traffic(turn_stages(None, DEFAULT_PAIR), {"whisper": whisper.endpoint})
        workload = WorkloadSettings(turn_rate_per_s=2.0, window_s=2.0)
        inputs = Inputs(load_utterances(AudioSettings()))
        summary = summarise([run_window(traffic, workload, inputs, seed=0, window_index=0, only="whisper")])
    finally:
        pids = whisper.pids()
        whisper.stop()
    assert summary.n_failed == 0
    assert summary.recognition["whisper"].rate == 0.0
    assert summary.of(RTF) is not None
    assert all(start_ticks(pid) is None for pid in pids)


def test_asked_for_cuda_where_there_is_none_it_fails_and_measures_nothing() -> None:
    whisper = service(device="cuda", compute_type="default")
    with pytest.raises(ServiceError) as caught:
        whisper.start()
    assert caught.value.failure.kind in (FailureKind.STARTUP_CRASH, FailureKind.WRONG_DEVICE)
    assert "CUDA" in caught.value.failure.evidence
    assert whisper.pids() == []


def test_it_answers_only_those_who_have_the_key_and_only_audio() -> None:
    whisper = service()
    whisper.start()
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(whisper.base_url + "/health", timeout=10)
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nno audio\r\n--x--\r\n'
        headers = {"Authorization": f"Bearer {whisper.api_key}", "Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(whisper.base_url + "/v1/audio/transcriptions", data=body, headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request, timeout=10)
        assert whisper.failure() is None
    finally:
        whisper.stop()


def test_its_death_is_noticed() -> None:
    whisper = service()
    whisper.start()
    for pid in whisper.pids():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (failure := whisper.failure()) is None:
        assert time.monotonic() < deadline
    assert failure.kind is FailureKind.SERVICE_LOST
    whisper.stop()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """The service's handlers with the real model, in this process."""
    given = parse_arguments(["--model", resolve_whisper("tiny.en"), "--name", "here", "--port", "0", "--device", "cpu", "--compute-type", "int8"])
    app = build_app(Transcriber(load_model(given), given), {"name": "here", "language": given.language}, "key")
    async with TestClient(TestServer(app), headers={"Authorization": "Bearer key"}) as client:
        yield client


def form_of(content: bytes, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(fields)
    form.add_field("file", content, filename="clip.wav")
    return form


async def refused(client: TestClient[web.Request, web.Application], form: object) -> tuple[int, str]:
    async with client.post("/v1/audio/transcriptions", data=form) as reply:
        return reply.status, (await reply.json())["error"]["message"]


def test_an_upload_beyond_its_bounds_is_refused_in_plain_words() -> None:
    clip = load_utterances(AudioSettings())[0].wav_bytes

    async def ask() -> None:
        async with served() as client:
            assert await refused(client, form_of(bytes(MAX_BYTES + 1))) == (413, "the request is too large. Send at most 64 MiB.")
            assert await refused(client, form_of(a_flac_of_silence(seconds=601))) == (413, "file: the audio lasts more than 600 s. Send it in shorter pieces.")
            status, message = await refused(client, form_of(b"no audio"))
            assert (status, message[:22]) == (400, "file: it is not a WAV,")
            assert await refused(client, form_of(clip, language="de")) == (400, "language=de: unknown to the model. Send one of en.")
            assert (await refused(client, aiohttp.FormData({"model": "whisper"})))[0] == 400
            async with client.post("/v1/audio/transcriptions", data=form_of(clip)) as reply:
                assert reply.status == 200, "after all that it still transcribes"

    asyncio.run(ask())


def test_it_answers_the_health_check_while_it_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder is held: on the event loop it would hold the health check, too."""
    decoding, go_on = threading.Event(), threading.Event()

    def held(content: bytes) -> np.ndarray:
        decoding.set()
        assert go_on.wait(60)
        return read_audio(content)

    monkeypatch.setattr(transcriber, "read_audio", held)

    async def ask() -> None:
        async with served() as client:
            upload = asyncio.create_task(refused(client, form_of(b"no audio")))
            await asyncio.to_thread(decoding.wait, 60)
            try:
                async with asyncio.timeout(30), client.get("/health") as reply:
                    assert (await reply.json())["name"] == "here"
                assert not upload.done()
            finally:
                go_on.set()
            assert (await upload)[0] == 400

    asyncio.run(ask())


def a_flac_of_silence(seconds: int) -> bytes:
    """A few kilobytes that decode to minutes."""
    content = io.BytesIO()
    with av.open(content, "w", format="flac") as target:
        stream = target.add_stream("flac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        for _ in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
            frame.sample_rate = 16000
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return content.getvalue()
