"""The example of a speech server, as a process, spoken to by OpenAI's own client and understood by our Whisper."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.services.conftest import PORTS
from tune_gpu.common.process.managed import ManagedProcess
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.testing.speech_server import LONGEST_SENTENCE, Speaker, build_app, load_voice
from tune_gpu.workload.wer import word_error_rate

pytest.importorskip("hibari")
RATE_HZ = 24000
SENTENCES = [
    "Turn on the lights in the kitchen and close the blinds in the living room.",
    "The next train to the airport leaves from platform seven in twenty minutes.",
    "Please remind me to call my sister tomorrow morning before breakfast.",
    "It will be mostly sunny this afternoon, with a light wind from the west.",
    "I have added milk, bread and coffee to your shopping list.",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(PORTS), tmp_path_factory.mktemp("speech") / "log"
    command = [sys.executable, "-m", "tune_gpu.testing.speech_server", "--port", str(port), "--voice", "heart"]
    process = ManagedProcess(command, log=log, env=os.environ)
    try:
        wait_for(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def wait_for(url: str, process: ManagedProcess, log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                assert json.load(answer)["voice"] == "heart"
                return
        except (urllib.error.URLError, TimeoutError):
            assert process.exit_code() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def spoken(client: openai.OpenAI, text: str, form: str = "wav", speed: float = 1.0) -> bytes:
    return client.audio.speech.create(model="hibari", voice="heart", input=text, response_format=form, speed=speed).read()


def samples(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as clip:
        assert (clip.getnchannels(), clip.getsampwidth(), clip.getframerate()) == (1, 2, RATE_HZ)
        return np.frombuffer(clip.readframes(len(content)), "<i2")


def test_whisper_understands_what_it_says(client: openai.OpenAI) -> None:
    whisper = WhisperService(WhisperSettings(model="base", compute_type="int8", cpu_threads=0, cpu_cores="0-1"), device="cpu", port_range=PORTS)
    whisper.start()
    try:
        listener = openai.OpenAI(base_url=f"{whisper.base_url}/v1", api_key=whisper.api_key, max_retries=0)
        heard = [listener.audio.transcriptions.create(model="whisper-1", file=("speech.wav", spoken(client, text))).text for text in SENTENCES]
    finally:
        whisper.stop()
    rate = word_error_rate(SENTENCES, heard)
    print(f"word error rate {rate}: {heard}")
    assert rate is not None
    assert rate <= 0.05


def test_the_forms_have_the_same_sound(client: openai.OpenAI) -> None:
    pcm = np.frombuffer(spoken(client, SENTENCES[0], "pcm"), "<i2")
    assert np.array_equal(samples(spoken(client, SENTENCES[0])), pcm), "the same text sounds the same"
    assert 2.0 < len(pcm) / RATE_HZ < 10.0
    assert np.abs(pcm).max() > 3000


def test_speed_shortens_what_is_said(client: openai.OpenAI) -> None:
    slow, fast = (len(samples(spoken(client, SENTENCES[0], speed=speed))) for speed in (0.8, 1.6))
    assert 1.7 < slow / fast < 2.3


class Counted:
    """The real voice, with the number of sentences that it has synthesised."""

    def __init__(self, voice: Any) -> None:
        self._voice, self.sentences = voice, 0
        self.voice, self.sample_rate, self.phonemize = voice.voice, voice.sample_rate, voice.phonemize

    def from_phonemes(self, *arguments: Any, **options: Any) -> np.ndarray:
        self.sentences += 1
        return self._voice.from_phonemes(*arguments, **options)


def test_a_page_of_numbers_is_parted_between_its_words() -> None:
    """Hibari makes one sentence of it, of 33,000 sounds, and would synthesise them together."""
    parts = asyncio.run(Speaker(load_voice("heart")).sentences("1234567890 " * 372))
    assert len(parts) > 50
    assert max(map(len, parts)) <= LONGEST_SENTENCE


def test_each_sentence_is_sent_before_the_rest_is_synthesised() -> None:
    voice = Counted(load_voice("heart"))

    async def listen_and_leave() -> int:
        asked = {"model": "hibari", "voice": "heart", "input": " ".join(SENTENCES * 10), "response_format": "pcm"}
        async with TestClient(TestServer(build_app(voice))) as client:
            async with client.post("/v1/audio/speech", json=asked) as answer:
                await answer.content.readany()
                at_first = voice.sentences
                assert (await client.get("/health")).status == 200, "the event loop is free"
            return at_first

    assert asyncio.run(listen_and_leave()) < 10
    assert voice.sentences < 10 * len(SENTENCES), "nobody listens to the rest"


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list().data] == ["hibari"]


def test_what_it_cannot_do_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"response_format=mp3: not supported. Supported is wav or pcm") as caught:
        spoken(client, "Hello.", "mp3")
    assert caught.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match=r"voice=alloy: not supported. Supported is heart"):
        client.audio.speech.create(model="hibari", voice="alloy", input="Hello.")
    with pytest.raises(openai.NotFoundError, match=r"model=gpt-4o-mini-tts: it is not served. Served is hibari"):
        client.audio.speech.create(model="gpt-4o-mini-tts", voice="heart", input="Hello.")
    with pytest.raises(openai.BadRequestError, match="nothing in it is spoken"):
        spoken(client, "… !?")


def post(url: str, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url}/v1/audio/speech", body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


NO_JSON = {"empty": (b"", 400), "cut off": (b"{", 400), "not UTF": (b"\xff\xfe{}", 400), "deep": (b"[" * 50_000, 400), "large": (b" " * 100_000, 413)}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_is_refused(url: str, name: str) -> None:
    body, expected = NO_JSON[name]
    status, said = post(url, body, "application/json; charset=no-such")
    assert status == expected
    assert json.loads(said)["error"]["type"] == "invalid_request_error"


TEXTS = {
    "one word": "a" * 4096, "digits": "1234567890 " * 15, "Chinese": "你好，世界 hello", "emoji": "🙂 yes", "half a pair": "\ud800 yes", "phonemes": "[yes](/jˈɛs/)",
    "many sentences": "yes.\n" * 100,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_ends_the_server(url: str, name: str) -> None:
    status, said = post(url, json.dumps({"model": "hibari", "voice": "heart", "input": TEXTS[name], "response_format": "pcm"}).encode())
    print(name, status, len(said))
    assert status == 200
    assert len(said) > 0
    assert post(url, json.dumps({"model": "hibari", "voice": "heart", "input": "Still here."}).encode())[0] == 200


def test_a_voice_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    process = ManagedProcess([sys.executable, "-m", "tune_gpu.testing.speech_server", "--port", "1", "--voice", "nobody"], log=tmp_path / "log", env=os.environ)
    deadline = time.monotonic() + 240
    while process.exit_code() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stop()
    assert (tmp_path / "log").read_text().startswith("--voice nobody: it cannot be loaded")
