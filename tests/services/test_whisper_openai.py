"""Our Whisper spoken to by OpenAI's own client, with real weights."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.services.conftest import PORTS
from tune_gpu.config.schema import AudioSettings
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.workload.audio import load_utterances

CLIPS = [clip.wav_bytes for clip in load_utterances(AudioSettings())]
SENTENCE = 2
"""The clip that is a sentence; the first counts to ten."""
CUE = re.compile(r"\d\d:\d\d:\d\d[,.]\d{3} --> \d\d:\d\d:\d\d[,.]\d{3}")


def started(model: str, **settings: Any) -> WhisperService:
    service = WhisperService(
        WhisperSettings(model=model, compute_type="int8", cpu_threads=0, cpu_cores="0-1", **settings), device="cpu", port_range=PORTS
    )
    service.start()
    return service


@pytest.fixture(scope="module", params=[1, 4], ids=["one by one", "batched"])
def service(request: pytest.FixtureRequest) -> Iterator[WhisperService]:
    service = started("base", batch_size=request.param)
    yield service
    service.stop()


@pytest.fixture
def client(service: WhisperService) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=service.api_key, max_retries=0)


def upload(content: bytes = CLIPS[SENTENCE]) -> tuple[str, bytes]:
    return "clip.wav", content


def long_clip() -> bytes:
    """Return all clips, one after another, five times: more than Whisper's 30 s."""
    parts = []
    for content in CLIPS * 5:
        with wave.open(io.BytesIO(content)) as clip:
            parts += [clip.readframes(clip.getnframes()), bytes(2 * 16000)]
    whole = io.BytesIO()
    with wave.open(whole, "wb") as target:
        target.setparams((1, 2, 16000, 0, "NONE", ""))
        target.writeframes(b"".join(parts))
    return whole.getvalue()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_each_format_has_the_same_words(client: openai.OpenAI) -> None:
    transcript = client.audio.transcriptions.create(model="whisper-1", file=upload())
    assert len(words(transcript.text)) > 3
    text = client.audio.transcriptions.create(model="whisper-1", file=upload(), response_format="text")
    srt = client.audio.transcriptions.create(model="whisper-1", file=upload(), response_format="srt")
    vtt = client.audio.transcriptions.create(model="whisper-1", file=upload(), response_format="vtt")
    assert words(text) == words(transcript.text)
    assert words(srt) == words(transcript.text)
    assert words(vtt) == ["webvtt", *words(transcript.text)]
    assert CUE.search(srt)
    assert srt.startswith("1\n00:00:0")
    assert CUE.search(vtt)


def test_verbose_answers_have_segments_and_words_as_asked(client: openai.OpenAI) -> None:
    transcript = client.audio.transcriptions.create(model="whisper-1", file=upload(), response_format="verbose_json")
    assert transcript.language == "english"
    assert transcript.duration > 1
    assert transcript.segments
    assert words(" ".join(segment.text for segment in transcript.segments)) == words(transcript.text)
    assert all(0 <= segment.start < segment.end for segment in transcript.segments)
    assert transcript.words is None
    timed = client.audio.transcriptions.create(
        model="whisper-1", file=upload(), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert timed.segments is None
    assert timed.words is not None
    assert [part for word in timed.words for part in words(word.word)] == words(timed.text)
    assert [word.start for word in timed.words] == sorted(word.start for word in timed.words)


def test_segments_are_streamed_one_by_one(client: openai.OpenAI) -> None:
    whole = client.audio.transcriptions.create(model="whisper-1", file=upload(long_clip()), response_format="verbose_json")
    *deltas, done = client.audio.transcriptions.create(model="whisper-1", file=upload(long_clip()), stream=True)
    assert len(deltas) > 1
    assert "".join(event.delta for event in deltas) == done.text
    assert words(done.text)[:5] == words(whole.text)[:5]
    assert done.type == "transcript.text.done"


def test_a_prompt_and_a_temperature_reach_the_model(client: openai.OpenAI) -> None:
    """The prompt must change the transcript, in both ways of decoding. How is up to the model."""
    plain = client.audio.transcriptions.create(model="whisper-1", file=upload())
    prompt = "the quick brown phox jumps over the lazy dogge, the quick brown phox"
    assert client.audio.transcriptions.create(model="whisper-1", file=upload(), prompt=prompt).text != plain.text
    hot = client.audio.transcriptions.create(model="whisper-1", file=upload(), response_format="verbose_json", temperature=0.7)
    assert {segment.temperature for segment in hot.segments or []} == {0.7}


def test_speech_is_translated_into_english(client: openai.OpenAI) -> None:
    transcript = client.audio.translations.create(model="whisper-1", file=upload(), response_format="verbose_json")
    assert transcript.language == "english"
    assert len(words(transcript.text)) > 3


def test_the_one_model_is_listed_and_no_other_is_served(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id) == model
    assert client.audio.transcriptions.create(model=model.id, file=upload()).text
    with pytest.raises(openai.NotFoundError, match=f"model=whisper-9: it is not served. Served is {model.id}"):
        client.audio.transcriptions.create(model="whisper-9", file=upload())
    with pytest.raises(openai.NotFoundError, match="it is not served"):
        client.models.retrieve("whisper-9")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "diarized_json"}, "response_format=diarized_json: not supported. Supported are json, text, srt, verbose_json, vtt"),
    ({"language": "xx"}, "language=xx: unknown to the model"),
    ({"temperature": 1.5}, "temperature=1.5: out of range. Send a number from 0 to 1"),
    ({"timestamp_granularities": ["word"]}, "only response_format=verbose_json has them"),
    ({"response_format": "verbose_json", "timestamp_granularities": ["letter"]}, "timestamp_granularities=letter: not supported"),
    ({"include": ["logprobs"]}, "include: not supported"),
    ({"chunking_strategy": "auto"}, "chunking_strategy: not supported"),
    ({"stream": True, "response_format": "srt"}, "stream=true: response_format=srt is not streamed"),
    ({"extra_body": {"beam_size": 5}}, "beam_size: not supported"),
    ({"extra_body": {"langage": "en"}}, "langage: not supported. Did you mean language"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[next(iter(fields)) + str(number) for number, (fields, _) in enumerate(REFUSED)])
def test_what_is_not_supported_is_refused(client: openai.OpenAI, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=re.escape(message)) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=upload(), **fields)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param


def test_a_model_of_english_does_not_translate() -> None:
    service = started("tiny.en")
    try:
        client = openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=service.api_key, max_retries=0)
        with pytest.raises(openai.BadRequestError, match="it cannot translate"):
            client.audio.translations.create(model="whisper-1", file=upload())
        with pytest.raises(openai.BadRequestError, match=r"language=de: unknown to the model\. Send one of en"):
            client.audio.transcriptions.create(model="whisper-1", file=upload(), language="de")
    finally:
        service.stop()
