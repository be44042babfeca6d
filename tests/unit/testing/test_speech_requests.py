"""Requests for speech: what the example server takes, and what it refuses by name."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import wave
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.testing.speech_server import ENDLESS, FIELDS, LONGEST_INPUT, Asked, Refused, read_request, wav_header

LEAST = {"model": "hibari", "input": "Hello.", "voice": "heart"}


def test_a_request_without_options_is_wav_at_its_own_pace() -> None:
    assert read_request(LEAST, "heart") == Asked("Hello.", "wav", 1.0)
    assert read_request({**LEAST, "model": "tts-1", "response_format": "pcm", "speed": 2, "stream_format": "audio"}, "heart") == Asked("Hello.", "pcm", 2.0)
    assert read_request({**LEAST, "speed": None, "instructions": None}, "heart") == Asked("Hello.", "wav", 1.0), "null is what is not given"


REFUSED: list[tuple[Any, str, str | None, int]] = [
    ([], "the request is not a JSON object", None, 400),
    ({}, "model: it is missing", "model", 400),
    ({**LEAST, "model": "tts-1-hd"}, "model=tts-1-hd: it is not served. Served is hibari", "model", 404),
    ({**LEAST, "voice": "alloy"}, "voice=alloy: not supported. Supported is heart", "voice", 400),
    ({**LEAST, "voice": {"id": "heart"}}, "voice: it is missing, or not text", "voice", 400),
    ({"model": "hibari", "input": "Hello."}, "voice: it is missing", "voice", 400),
    ({**LEAST, "input": ""}, "input: it is missing", "input", 400),
    ({**LEAST, "input": " \n"}, "input: it is missing", "input", 400),
    ({**LEAST, "input": ["Hello."]}, "input: it is missing, or not text", "input", 400),
    ({**LEAST, "input": "a" * (LONGEST_INPUT + 1)}, "input: it has 4097 characters. Send at most 4096", "input", 400),
    ({**LEAST, "response_format": "mp3"}, "response_format=mp3: not supported. Supported is wav or pcm", "response_format", 400),
    ({**LEAST, "stream_format": "sse"}, "stream_format=sse: not supported. Supported is audio", "stream_format", 400),
    ({**LEAST, "instructions": "Whisper."}, "instructions: not supported. Supported are model, input", "instructions", 400),
    *[({**LEAST, "speed": speed}, f"speed={speed}: out of range. Send a number from 0.5 to 2", "speed", 400) for speed in (0.25, 4, "fast", True, math.nan, math.inf)],
]  # fmt: skip


@pytest.mark.parametrize(("body", "said", "param", "status"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_supported_is_refused_by_its_name(body: Any, said: str, param: str | None, status: int) -> None:
    with pytest.raises(Refused) as caught:
        read_request(body, "heart")
    assert said in str(caught.value)
    assert (caught.value.param, caught.value.status) == (param, status)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(body=json_values | st.dictionaries(st.sampled_from([*FIELDS, "other"]), json_values))
def test_no_json_ends_in_another_error(body: Any) -> None:
    with contextlib.suppress(Refused):
        asked = read_request(body, "heart")
        assert asked.text.strip()
        assert 0.5 <= asked.speed <= 2.0


def test_the_header_of_a_stream_is_a_wav_of_unknown_length() -> None:
    header = wav_header(24000)
    assert struct.unpack("<I", header[-4:]) == (ENDLESS,)
    with wave.open(io.BytesIO(header + b"\0\0" * 10)) as clip:
        assert (clip.getnchannels(), clip.getsampwidth(), clip.getframerate()) == (1, 2, 24000)
        assert clip.readframes(100) == b"\0\0" * 10
