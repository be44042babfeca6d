"""The client of OpenAI's `/v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import aiohttp

from tune_gpu.workload.clients.call import AnsweredAtOnce, Audio, Call, amount_of, body_of, failure_as_value, text_of

_MODEL = "whisper"
"""Name of the model that is asked for where the service has none."""


@dataclass
class TranscriptionSample(AnsweredAtOnce):
    """One transcription. Times are of the monotonic clock, in seconds."""

    due: float
    done: float | None = None
    text: str = ""
    audio_s: float = 0.0
    compute_s: float | None = None
    error: str | None = None

    @property
    def rtf(self) -> float | None:
        """Return the real-time factor, the seconds of computing for one second of speech, or None."""
        return None if self.error or self.compute_s is None or self.audio_s <= 0 else self.compute_s / self.audio_s


async def transcribe(call: Call, audio: Audio) -> TranscriptionSample:
    """Transcribe one clip. An empty text is the error `empty_transcript`."""
    sample = TranscriptionSample(call.due, audio_s=audio.seconds)
    form = aiohttp.FormData()
    form.add_field("file", audio.wav, filename="utterance.wav", content_type="audio/wav")
    form.add_field("model", call.endpoint.model or _MODEL)
    form.add_field("response_format", "json")
    url = call.url("/v1/audio/transcriptions")
    with failure_as_value(sample, cut_off="connection"), call.pulse.request(call.service):
        async with asyncio.timeout(call.left_s), call.session.post(url, data=form, headers=call.headers, allow_redirects=False) as reply:
            if reply.status != 200:
                call.mark()
                sample.error = f"http_{reply.status}"
                return sample
            answer = json.loads(await body_of(reply))
            call.mark()
            sample.text = text_of(answer["text"])
            sample.compute_s = amount_of(answer["compute_s"]) if "compute_s" in answer else None
            sample.done = time.monotonic()
    if sample.error is None and not sample.text:
        sample.error = "empty_transcript"
    return sample
