"""Transcribe in threads, so that the event loop stays responsive."""

from __future__ import annotations

import argparse
import asyncio
import io
import threading
import time
import wave
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tune_gpu.services.decoding import MAX_S, SAMPLE_RATE_HZ, decode
from tune_gpu.services.faster_whisper.answers import Transcript
from tune_gpu.services.faster_whisper.asked import Asked, Task
from tune_gpu.services.faster_whisper.cuda_libraries import load_for_whisper

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment

_WHISPERS_S = 30
"""Whisper's own window. Longer audio must be cut, at silence."""


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

    async def transcribe(self, samples: np.ndarray, asked: Asked) -> Transcript:
        """Return the whole transcript."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._whole, samples, asked)

    async def segments(self, samples: np.ndarray, asked: Asked) -> AsyncIterator[Segment]:
        """Yield each segment as soon as the model has it. The model stops after the one at hand if nobody goes on reading."""
        loop, found, left = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def work() -> None:
            try:
                for segment in self._begin(samples, asked)[0]:
                    if left.is_set():
                        return
                    loop.call_soon_threadsafe(found.put_nowait, segment)
            finally:
                loop.call_soon_threadsafe(found.put_nowait, None)

        ended = loop.run_in_executor(self._pool, work)
        try:
            while (segment := await found.get()) is not None:
                yield segment
            await ended
        finally:
            left.set()

    def _whole(self, samples: np.ndarray, asked: Asked) -> Transcript:
        started = time.perf_counter()
        segments, info = self._begin(samples, asked)
        whole = list(segments)
        return Transcript(whole, info.language, len(samples) / SAMPLE_RATE_HZ, time.perf_counter() - started)

    def _begin(self, samples: np.ndarray, asked: Asked) -> tuple[Iterable[Segment], Any]:
        """Return the segments, which are computed as they are read, and what Whisper says of the speech."""
        given = self._arguments
        options: dict[str, Any] = {"language": asked.language, "beam_size": given.beam_size, "initial_prompt": asked.prompt}
        if asked.task is Task.TRANSLATE:
            options["task"] = str(asked.task)
        if asked.temperature:
            options["temperature"] = asked.temperature
        if asked.words:
            options["word_timestamps"] = True
        if given.batch_size > 1:
            return self._batched(samples, asked, options)
        return self._model.transcribe(
            samples, vad_filter=given.vad_filter, condition_on_previous_text=given.condition_on_previous_text, **options
        )

    def _batched(self, samples: np.ndarray, asked: Asked, options: dict[str, Any]) -> tuple[Iterable[Segment], Any]:
        from faster_whisper import BatchedInferencePipeline

        given = self._arguments
        # A new pipeline for each request, because it keeps state.
        return BatchedInferencePipeline(self._model).transcribe(
            samples,
            batch_size=given.batch_size,
            vad_filter=given.vad_filter or len(samples) >= _WHISPERS_S * SAMPLE_RATE_HZ,
            without_timestamps=not asked.format.timed,
            **options,
        )
