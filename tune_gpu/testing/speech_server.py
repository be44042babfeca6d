"""Serve speech synthesis with OpenAI's API: an example of a server that the kind `command` starts, all of it in this file.

    python -m tune_gpu.testing.speech_server --port 8880 --voice heart

`POST /v1/audio/speech` answers with audio, one chunk a sentence, each sent as soon as it is synthesised. `GET /v1/models` names the model.
`GET /health` answers once the voice is loaded. What is not supported is refused with status 400 and the field's name; nothing is ignored.
The voice is Hibari's (PyPI `hibari-tts`): English, 24 kHz, on one core of the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

MODEL = "hibari"
ALIASES = ("tts-1",)
"""Names that clients know beside the one that is served."""
FORMATS = {"wav": "audio/wav", "pcm": "audio/pcm"}
"""Values of `response_format`, the first one where none is given: mono, 16 bits, with or without a header."""
FIELDS = ("model", "input", "voice", "response_format", "speed", "stream_format")
LONGEST_INPUT = 4096
"""Characters, as in OpenAI's API."""
LONGEST_SENTENCE = 400
"""Sounds that are synthesised together: time and memory grow faster than their number, and a page of digits is one sentence to Hibari."""
MOST_BYTES = 64 * 1024
SLOWEST, FASTEST = 0.5, 2.0
"""Range of `speed` that Hibari was made for."""
ENDLESS = 0xFFFFFFFF
"""Size in a WAV header whose audio is not complete yet."""


class Refused(ValueError):
    """A request that is not answered. `param` is the field, `status` that of HTTP."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class Asked:
    """A checked request."""

    text: str
    format: str
    speed: float


def read_request(body: object, voice: str) -> Asked:
    """Check the JSON of a request to a server of this voice. Raise Refused for what it does not support."""
    if not isinstance(body, dict):
        raise Refused("the request is not a JSON object. Send model, input and voice in one.")
    given = {name: value for name, value in body.items() if value is not None}
    if unknown := [name for name in given if name not in FIELDS]:
        raise Refused(f"{unknown[0]}: not supported. Supported are {', '.join(FIELDS)}.", unknown[0])
    model = _text(given, "model")
    if model not in (MODEL, *ALIASES):
        raise Refused(f"model={model}: it is not served. Served is {MODEL}.", "model", 404)
    _one_of(given, "voice", (voice,))
    if "stream_format" in given:
        _one_of(given, "stream_format", ("audio",))
    chosen = _one_of(given, "response_format", tuple(FORMATS)) if "response_format" in given else next(iter(FORMATS))
    text = _text(given, "input")
    if len(text) > LONGEST_INPUT:
        raise Refused(f"input: it has {len(text)} characters. Send at most {LONGEST_INPUT}.", "input")
    return Asked(text, chosen, _speed(given.get("speed", 1.0)))


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"{name}: it is missing, or not text. Send text.", name)
    return value


def _one_of(given: Mapping[str, object], name: str, known: tuple[str, ...]) -> str:
    value = _text(given, name)
    if value not in known:
        raise Refused(f"{name}={value}: not supported. Supported is {' or '.join(known)}.", name)
    return value


def _speed(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not SLOWEST <= value <= FASTEST:
        raise Refused(f"speed={value}: out of range. Send a number from {SLOWEST:g} to {FASTEST:g}.", "speed")
    return float(value)


class Speaker:
    """The voice, and the one thread that synthesises: the event loop stays free, and sentences of several requests take turns."""

    def __init__(self, voice: Any) -> None:
        self._voice = voice
        self._thread = ThreadPoolExecutor(1)

    async def sentences(self, text: str) -> list[str]:
        """Return the sounds of each sentence that has any: a text of punctuation has none. A long sentence is parted between its words."""
        found: list[str] = await self._run(lambda: self._voice.phonemize(text))
        parts = [part for sounds in found for part in textwrap.wrap(sounds, LONGEST_SENTENCE, break_on_hyphens=False)]
        return [part for part in parts if any(map(str.isalpha, part))]

    async def audio(self, sounds: str, speed: float) -> bytes:
        """Return one sentence as 16-bit samples, the same for the same sounds."""
        wave = await self._run(lambda: self._voice.from_phonemes(sounds, speed, seed=0))
        return (np.clip(wave, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def build_app(voice: Any) -> web.Application:
    """Build the HTTP application around a loaded voice."""
    api = _Api(Speaker(voice), voice.voice, voice.sample_rate)
    app = web.Application(middlewares=[_refusals], client_max_size=MOST_BYTES)
    app.add_routes([web.get("/health", api.health), web.get("/v1/models", api.models), web.post("/v1/audio/speech", api.speech)])
    return app


class _Api:
    """The answers to each address."""

    def __init__(self, speaker: Speaker, voice: str, rate_hz: int) -> None:
        self._speaker, self._voice, self._rate_hz = speaker, voice, rate_hz
        self._since = int(time.time())

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"model": MODEL, "voice": self._voice, "sample_rate_hz": self._rate_hz, "device": "cpu"})

    async def models(self, _request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": self._since, "owned_by": "hibari-tts"}
        return web.json_response({"object": "list", "data": [model]})

    async def speech(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = read_request(json.loads(await request.read()), self._voice)
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(f"the request is too large. Send at most {MOST_BYTES // 1024} KiB.", "input", 413) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"the request is not JSON ({error}). Send a JSON object.") from error
        sentences = await self._speaker.sentences(asked.text)
        if not sentences:
            raise Refused("input: nothing in it is spoken. Send words.", "input")
        first = await self._speaker.audio(sentences[0], asked.speed)  # before the status is sent, so that a failure has its own
        answer = web.StreamResponse(headers={"Content-Type": FORMATS[asked.format]})
        try:
            await answer.prepare(request)
            await answer.write((wav_header(self._rate_hz) if asked.format == "wav" else b"") + first)
            for sounds in sentences[1:]:
                await answer.write(await self._speaker.audio(sounds, asked.speed))
            await answer.write_eof()
        except ConnectionResetError:  # the client has closed the connection: the rest is not synthesised
            pass
        return answer


def wav_header(rate_hz: int) -> bytes:
    """Return the header of a WAV stream of one channel and 16 bits, whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", ENDLESS, b"WAVE") + form + struct.pack("<4sI", b"data", ENDLESS)


@web.middleware
async def _refusals(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer a refused request with an error as OpenAI's clients read it."""
    try:
        return await handler(request)
    except Refused as refused:
        error = {"message": str(refused), "type": "invalid_request_error", "param": refused.param, "code": None}
        return web.json_response({"error": error}, status=refused.status)


def load_voice(name: str) -> Any:
    """Return a loaded voice of Hibari's that has spoken once, so that the first request does not wait for its dictionary.

    `heart` is in the package. Hibari downloads any other voice once.
    """
    from hibari import Hibari

    voice = Hibari(voice=name)
    voice("Ready.")
    return voice


def main(argv: list[str]) -> None:
    """Load the voice, then serve until terminated."""
    parser = argparse.ArgumentParser(prog="speech_server", description="Hibari behind OpenAI's speech API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--voice", default="heart")
    arguments = parser.parse_args(argv)
    try:
        voice = load_voice(arguments.voice)
    except (ImportError, RuntimeError, ValueError) as error:
        sys.exit(f"--voice {arguments.voice}: it cannot be loaded ({error}). Install hibari-tts, and choose heart or a voice of its list.")
    web.run_app(build_app(voice), host=arguments.host, port=arguments.port, print=None, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1:])
