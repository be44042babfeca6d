"""The real Whisper service with real weights."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.services.conftest import PORTS
from tune_gpu.config import AudioSettings, WhisperSettings, WorkloadSettings
from tune_gpu.measurement import FailureKind, ServiceError
from tune_gpu.services.process import start_ticks
from tune_gpu.services.whisper import WhisperService
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.clients import Endpoints
from tune_gpu.workload.summary import summarise
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
        endpoints = Endpoints("", "", "", whisper.base_url, whisper.api_key)
        workload = WorkloadSettings(turn_rate_per_s=2.0, window_s=2.0)
        clips = load_utterances(AudioSettings())
        summary = summarise([run_window(endpoints, workload, clips, seed=0, window_index=0, mode="stt")])
    finally:
        pids = whisper.pids()
        whisper.stop()
    assert summary.n_failed == 0
    assert summary.wer == 0.0
    assert summary.rtf is not None
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
