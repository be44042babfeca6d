"""The client of OpenAI's `/v1/audio/speech`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from tune_gpu.workload.clients.call import Audio, Call, failure_as_value, ms_between
from tune_gpu.workload.clients.wav import Form, form_of_pcm, read_form, with_header

_MAX_BYTES = 32 * 2**20
"""Eleven minutes of speech at 24 kHz."""
_RIFF = b"RIFF"


@dataclass
class SpeechSample:
    """One synthesis. Times are of the monotonic clock, in seconds."""

    due: float
    first_output: float | None = None
    """When the first byte of audio arrived; the header of a WAV file is none."""
    done: float | None = None
    n_bytes: int = 0
    """Of audio."""
    audio_s: float = 0.0
    error: str | None = None
    output: Audio | None = None
    """The speech, until the turn has ended: a window of it would fill the memory."""
    cancelled: bool = False
    """The caller hung up before the end. That is no failure."""

    @property
    def first_audio_ms(self) -> float | None:
        """Return the milliseconds from the due time to the first byte of audio, or None."""
        return ms_between(self.due, self.first_output, self.error)

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the last byte, or None."""
        return ms_between(self.due, self.done, self.error)

    @property
    def rtf(self) -> float | None:
        """Return the real-time factor, the seconds of waiting for one second of speech, or None."""
        return None if self.error or self.done is None or self.audio_s <= 0 else (self.done - self.due) / self.audio_s


async def speak(call: Call, text: str) -> SpeechSample:
    """Synthesise one text as WAV. Raw PCM is understood as well. An answer without audio is the error `empty_audio`."""
    sample = SpeechSample(call.due)
    body = {"model": call.endpoint.model, "input": text, "response_format": "wav"} | ({} if call.voice is None else {"voice": call.voice})
    url = call.url("/v1/audio/speech")
    with failure_as_value(sample, cut_off="truncated_stream"), call.pulse.request(call.service):
        async with call.limit(), call.session.post(url, json=body, headers=call.headers, allow_redirects=False) as reply:
            if reply.status != 200:
                call.mark()
                sample.error = f"http_{reply.status}"
                return sample
            await _read(reply, call, sample)
    if call.hung_up(sample.error):
        sample.error, sample.cancelled = None, True
    return sample


async def _read(reply: aiohttp.ClientResponse, call: Call, sample: SpeechSample) -> None:
    """Read the audio into the sample. Raise ValueError if it is neither WAV nor PCM, or too long."""
    content = bytearray()
    form: Form | None = None
    last = 0.0
    async for part in reply.content.iter_any():
        last = time.monotonic()
        call.mark()
        content += part
        if len(content) > _MAX_BYTES:
            raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes")
        if form is None and len(content) >= len(_RIFF):
            form = read_form(content) if content.startswith(_RIFF) else form_of_pcm(reply.headers.get("Content-Type", ""))
        if form is not None and sample.first_output is None and len(content) > form.start:
            sample.first_output = last
            if call.on_first is not None:
                call.on_first(last)
    if content and form is None:
        raise ValueError("a file that ends within its header")
    sample.n_bytes = 0 if form is None else form.n_bytes(len(content))
    if form is None or sample.n_bytes < form.frame_bytes:
        sample.error = "empty_audio"
        return
    sample.audio_s, sample.done = form.seconds(sample.n_bytes), last
    sample.output = Audio(bytes(content) if form.start else with_header(bytes(content), form), sample.audio_s)
