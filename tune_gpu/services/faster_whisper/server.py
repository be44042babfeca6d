"""Serve faster-whisper over HTTP as a separate process, with OpenAI's transcription API.

`POST /v1/audio/transcriptions` (multipart: `file`, optional `language`) answers `{"text", "duration_s", "compute_s"}`. `GET /health`
answers once the model is loaded, with the service's name and its actual device. Every request carries the run's key
(`Authorization: Bearer`), which comes in the variable TUNE_GPU_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import io
import json
import os
import sys
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
from aiohttp import web

from tune_gpu.services.decoding import MAX_BYTES, MAX_S, SAMPLE_RATE_HZ, NotAudio, TooLong, decode
from tune_gpu.services.faster_whisper.cuda_libraries import load_for_whisper


def load_model(arguments: argparse.Namespace) -> Any:
    """Load the weights on exactly the requested device. CTranslate2 raises an error if it does not exist."""
    from faster_whisper import WhisperModel

    if arguments.device == "cuda":
        load_for_whisper()
    return WhisperModel(
        arguments.model,
        device=arguments.device,
        compute_type=arguments.compute_type,
        cpu_threads=arguments.cpu_threads,
        num_workers=arguments.num_workers,
    )


def read_audio(content: bytes, limit_s: float = MAX_S) -> np.ndarray:
    """Return the samples as float32, mono, 16 kHz. Raise `NotAudio` if the content is not audio, or too long."""
    try:
        with wave.open(io.BytesIO(content)) as clip:
            if (clip.getframerate(), clip.getnchannels(), clip.getsampwidth()) == (SAMPLE_RATE_HZ, 1, 2):
                samples = np.frombuffer(clip.readframes(clip.getnframes()), dtype="<i2")
                if 0 < len(samples) == clip.getnframes() <= limit_s * SAMPLE_RATE_HZ:
                    return samples.astype(np.float32) / 32768.0
    except Exception:  # noqa: S110 - whatever a broken header leads `wave` to; the decoder below has its own opinion
        pass
    return decode(content, limit_s)


class Transcriber:
    """The model, and one thread for each of its workers. Further requests wait in a queue."""

    def __init__(self, model: Any, arguments: argparse.Namespace) -> None:
        self._model, self._arguments = model, arguments
        self._pool = ThreadPoolExecutor(arguments.num_workers)
        self._decoder = ThreadPoolExecutor(1)  # one upload at a time: decoded it may be a hundred times as large

    @property
    def languages(self) -> list[str]:
        """Return the language codes that the model accepts."""
        return list(self._model.supported_languages)

    async def read(self, upload: IO[bytes]) -> np.ndarray:
        """Return the samples of an upload, decoded in a thread so that the event loop stays responsive. Raise `NotAudio`."""
        return await asyncio.get_running_loop().run_in_executor(self._decoder, lambda: read_audio(upload.read()))

    async def transcribe(self, samples: np.ndarray, language: str) -> tuple[str, float]:
        """Return the text, and the seconds of computing."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, samples, language)

    def _work(self, samples: np.ndarray, language: str) -> tuple[str, float]:
        started = time.perf_counter()
        segments = self._batched(samples, language) if self._arguments.batch_size > 1 else self._one_by_one(samples, language)
        text = " ".join(segment.text.strip() for segment in segments)
        return text, time.perf_counter() - started

    def _one_by_one(self, samples: np.ndarray, language: str) -> Any:
        given = self._arguments
        segments, _ = self._model.transcribe(
            samples,
            language=language,
            beam_size=given.beam_size,
            vad_filter=given.vad_filter,
            condition_on_previous_text=given.condition_on_previous_text,
        )
        return segments

    def _batched(self, samples: np.ndarray, language: str) -> Any:
        from faster_whisper import BatchedInferencePipeline

        given = self._arguments
        # A new pipeline for each request, because it keeps state. Audio longer than Whisper's 30 s must be cut, at silence.
        segments, _ = BatchedInferencePipeline(self._model).transcribe(
            samples,
            language=language,
            beam_size=given.beam_size,
            batch_size=given.batch_size,
            vad_filter=given.vad_filter or len(samples) >= 30 * 16000,
        )
        return segments


def build_app(transcriber: Transcriber, description: dict[str, Any], api_key: str) -> web.Application:
    """Build the HTTP application."""

    @web.middleware
    async def authorise(request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            return _refusal(401, "Authorization: the key is wrong or missing. Send it as Bearer.")
        return await handler(request)

    async def health(_request: web.Request) -> web.Response:
        return web.json_response(description)

    async def transcriptions(request: web.Request) -> web.Response:
        try:
            form = await request.post()
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, f"the request is too large. Send at most {MAX_BYTES // 2**20} MiB.")
        except ValueError as error:
            return _refusal(400, f"the form cannot be read ({error}).")
        upload, language = form.get("file"), str(form.get("language") or description["language"])
        if not isinstance(upload, web.FileField):
            return _refusal(400, "file: the field is missing. Send the audio in it.")
        if language not in transcriber.languages:
            return _refusal(400, f"language={language}: unknown to the model. Send one of {', '.join(transcriber.languages)}.")
        try:
            samples = await transcriber.read(upload.file)
        except TooLong as error:
            return _refusal(413, f"file: the audio {error}. Send it in shorter pieces.")
        except NotAudio as error:
            return _refusal(400, f"file: {error}. Send a WAV file, for example.")
        text, compute_s = await transcriber.transcribe(samples, language)
        return web.json_response({"text": text, "duration_s": len(samples) / SAMPLE_RATE_HZ, "compute_s": compute_s})

    app = web.Application(middlewares=[authorise], client_max_size=MAX_BYTES)
    app.add_routes([web.get("/health", health), web.post("/v1/audio/transcriptions", transcriptions)])
    return app


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the service's command line."""
    parser = argparse.ArgumentParser(prog="whisper_server", description="faster-whisper behind OpenAI's transcription API.")
    parser.add_argument("--config", help="YAML file of these flags; flags on the command line take precedence")
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True, help="name that /health reports")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--compute-type", default="default")
    parser.add_argument("--cpu-threads", type=int, default=1)
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--language", default="en")
    parser.add_argument("--vad-filter", action="store_true")
    parser.add_argument("--condition-on-previous-text", action="store_true")
    given, _ = _config_flag().parse_known_args(argv)
    return parser.parse_args([*_flags_of(given.config), *argv])


def _config_flag() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser


def _flags_of(path: str | None) -> list[str]:
    if path is None:
        return []
    import yaml

    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file) or {}
    return [
        part for name, value in content.items() if value is not False for part in ([f"--{name}"] + ([] if value is True else [str(value)]))
    ]


def main(argv: list[str]) -> None:
    """Load the model, then serve until terminated."""
    arguments = parse_arguments(argv)
    key = os.environ.get("TUNE_GPU_API_KEY")
    if not key:
        sys.exit("TUNE_GPU_API_KEY: not set or empty, so that anybody could use the service. Set it to the service's key.")
    started = time.perf_counter()
    model = load_model(arguments)
    description = {
        "name": arguments.name,
        "pid": os.getpid(),
        "device": model.model.device,
        "compute_type": model.model.compute_type,
        "load_s": time.perf_counter() - started,
        "language": arguments.language,
        "settings": {name: value for name, value in vars(arguments).items() if name != "config"},
    }
    print(json.dumps(description), flush=True)
    app = build_app(Transcriber(model, arguments), description, key)
    web.run_app(app, host=arguments.host, port=arguments.port, print=None, access_log=None, handle_signals=True)


if __name__ == "__main__":
    main(sys.argv[1:])
