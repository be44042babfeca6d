"""Speak an answer sentence by sentence while it arrives, the first one first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tune_gpu.workload.clients.hangup import Hangup
from tune_gpu.workload.clients.speech import SpeechSample
from tune_gpu.workload.sessions.playback import Part
from tune_gpu.workload.sessions.sentences import Sentences

Say = Callable[[str, float, Callable[[float], None]], Awaitable[SpeechSample]]
"""Synthesises a sentence that was due at a time, and calls back when its first audio is there."""


class Speaker:
    """The sentences of one answer as a caller hears them.

    Args:
        say: synthesises a sentence; None where a caller reads.
        reading_s: how long a caller takes to read a sentence.
        hangup: of the caller, after which nothing more is spoken.
        on_heard: is called with the time at which the answer begins to be heard.
    """

    def __init__(self, say: Say | None, reading_s: Callable[[str], float], hangup: Hangup, on_heard: Callable[[float], None]) -> None:
        self._say, self._reading_s, self._hangup, self._on_heard = say, reading_s, hangup, on_heard
        self._sentences, self._heard_from = Sentences(), 0.0
        self._queue: asyncio.Queue[tuple[str, float] | None] = asyncio.Queue()
        self.parts: list[Part] = []
        self.samples: list[SpeechSample] = []

    def text(self, part: str) -> None:
        """Take a part of the answer."""
        self._take(self._sentences.add(part))

    def end(self, *, failed: bool) -> None:
        """Take the end of the answer. What is left of it is spoken unless the answer failed."""
        if not failed:
            self._take(self._sentences.rest())
        self._queue.put_nowait(None)

    def _take(self, sentences: list[str]) -> None:
        now = time.monotonic()
        for sentence in sentences:
            if self._say is not None:
                self._queue.put_nowait((sentence, now))
            else:
                self._heard(now)
                self.parts.append(Part(now, now, self._reading_s(sentence)))

    def _heard(self, at: float) -> None:
        if not self._heard_from:
            self._heard_from = at
            self._on_heard(at)

    async def speak(self) -> None:
        """Synthesise sentence after sentence until the end of the answer, the first failure or the caller's hanging up."""
        free = 0.0
        while (queued := await self._queue.get()) is not None:
            sentence, complete = queued
            if self._say is None or self._hangup.at is not None:
                continue
            sample = await self._say(sentence, max(complete, free), self._heard)
            sample.output = None
            self.samples.append(sample)
            if sample.error is not None:
                return
            if sample.first_output is not None and sample.done is not None:
                free = sample.done
                self.parts.append(Part(sample.first_output, sample.done, sample.audio_s))
