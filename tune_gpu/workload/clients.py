"""The two clients: speech to text, and streamed completions. The failure of a request is a value, never a latency."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from dataclasses import dataclass, field, replace

import aiohttp

from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.running import Endpoint

_MAX_BYTES = 4 * 2**20
_NOT_AN_ANSWER = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""Errors that reading a malformed answer may raise."""


@dataclass(frozen=True)
class Endpoints:
    """Where the two services under test answer, and what tracks their activity."""

    llm: Endpoint
    stt: Endpoint
    pulse: ActivityTracker = field(default_factory=ActivityTracker, compare=False)
    cache_salt: str | None = None
    """Requests share the engine's prefix cache only with those of the same salt (vLLM's `cache_salt`). None shares it with all."""

    def with_cold_cache(self) -> Endpoints:
        """Return the same endpoints with a new cache salt, so that a stretch of load finds nothing of earlier ones in the prefix cache.

        All candidates get the same prompts. With a shared cache they would cost less on an engine that is reused than on a new one, and
        less in a
        window that is measured again than in the first.
        """
        return replace(self, cache_salt=uuid.uuid4().hex)


@dataclass
class LlmSample:
    """One streamed completion. Times are of the monotonic clock, in seconds."""

    due: float
    chunk_times: list[float] = field(default_factory=list)
    n_tokens: int = 0
    error: str | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Return the milliseconds from the due time to the first token, or None."""
        return None if self.error or not self.chunk_times else (self.chunk_times[0] - self.due) * 1e3

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the last token, or None."""
        return None if self.error or not self.chunk_times else (self.chunk_times[-1] - self.due) * 1e3

    @property
    def itl_ms(self) -> list[float]:
        """Return the gaps between tokens in milliseconds. If a chunk carried several tokens, return the mean gap of the answer once for
        each gap."""
        if self.error or self.n_tokens < 2 or len(self.chunk_times) < 2:
            return []
        if len(self.chunk_times) == self.n_tokens:
            return [(b - a) * 1e3 for a, b in zip(self.chunk_times, self.chunk_times[1:], strict=False)]
        mean = (self.chunk_times[-1] - self.chunk_times[0]) * 1e3 / (self.n_tokens - 1)
        return [mean] * (self.n_tokens - 1)


@dataclass
class SttSample:
    """One transcription."""

    due: float
    done: float | None = None
    text: str = ""
    audio_s: float = 0.0
    compute_s: float | None = None
    error: str | None = None

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the transcript, or None."""
        return None if self.error or self.done is None else (self.done - self.due) * 1e3

    @property
    def rtf(self) -> float | None:
        """Return the real-time factor, the seconds of computing for one second of speech, or None."""
        return None if self.error or self.compute_s is None or self.audio_s <= 0 else self.compute_s / self.audio_s


async def complete(
    session: aiohttp.ClientSession, endpoints: Endpoints, prompt: str, *, max_tokens: int, due: float, timeout_s: float
) -> LlmSample:
    """Stream one completion (OpenAI's `/v1/completions`), and record when each chunk of tokens arrives.

    A chunk counts if it carries a choice, even one without text, because a token may be part of a character. Without the closing `[DONE]`
    the error is `truncated_stream`, without a token `empty_answer`, with fewer tokens than requested `short_answer`. No end-of-text token
    ends an answer, but vLLM cuts it where the context is full, and a candidate with too short a context would win by shorter answers.
    """
    sample = LlmSample(due)
    body = {
        "model": endpoints.llm.model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if endpoints.cache_salt is not None:
        body["cache_salt"] = endpoints.cache_salt
    try:
        with endpoints.pulse.request("vllm"):
            finished = await _stream(session, endpoints, body, sample, _left(due, timeout_s))
    except (TimeoutError, aiohttp.ServerTimeoutError):
        sample.error = "timeout"
    except (aiohttp.ClientPayloadError, asyncio.IncompleteReadError):
        sample.error = "truncated_stream"
    except (aiohttp.ClientError, OSError):
        sample.error = "connection"
    except _NOT_AN_ANSWER:
        sample.error = "bad_payload"
    else:
        sample.error = sample.error or (None if finished else "truncated_stream")
        if sample.error is None and not sample.chunk_times:
            sample.error = "empty_answer"
        elif sample.error is None and 0 < sample.n_tokens < max_tokens:  # 0: the server has not reported the number
            sample.error = "short_answer"
    sample.n_tokens = max(sample.n_tokens, len(sample.chunk_times))
    return sample


async def _stream(
    session: aiohttp.ClientSession, endpoints: Endpoints, body: dict[str, object], sample: LlmSample, timeout_s: float
) -> bool:
    """Send the request and read its stream into the sample. Return True if the stream ended as it should."""
    headers = {"Authorization": f"Bearer {endpoints.llm.key}"}
    async with asyncio.timeout(timeout_s), session.post(f"{endpoints.llm.url}/v1/completions", json=body, headers=headers, allow_redirects=False) as reply:
        # A 200 is no sign of life: vLLM's server sends it before its engine has done anything. Any other status is the whole answer.
        if reply.status != 200:
            endpoints.pulse.mark("vllm")
            sample.error = f"http_{reply.status}"
            return False
        async for line in reply.content:
            if not line.startswith(b"data:"):
                continue
            now, payload = time.monotonic(), line[5:].strip()
            endpoints.pulse.mark("vllm")
            if payload == b"[DONE]":
                return True
            _take_chunk(sample, json.loads(payload), now)
    return False


def _take_chunk(sample: LlmSample, chunk: dict[str, object], now: float) -> None:
    if "error" in chunk:
        sample.error = "stream_error"
    if chunk.get("choices"):
        sample.chunk_times.append(now)
    usage = chunk.get("usage")
    if isinstance(usage, dict):
        sample.n_tokens = int(_amount(usage["completion_tokens"]))


async def transcribe(
    session: aiohttp.ClientSession, endpoints: Endpoints, wav: bytes, *, audio_s: float, due: float, timeout_s: float
) -> SttSample:
    """Transcribe one clip (OpenAI's `/v1/audio/transcriptions`). An empty text is the error `empty_transcript`."""
    sample = SttSample(due, audio_s=audio_s)
    form = aiohttp.FormData()
    form.add_field("file", wav, filename="utterance.wav", content_type="audio/wav")
    form.add_field("model", "whisper")
    form.add_field("response_format", "json")
    headers = {"Authorization": f"Bearer {endpoints.stt.key}"}
    url = f"{endpoints.stt.url}/v1/audio/transcriptions"
    try:
        with endpoints.pulse.request("whisper"):
            async with asyncio.timeout(_left(due, timeout_s)), session.post(url, data=form, headers=headers, allow_redirects=False) as reply:
                if reply.status != 200:
                    endpoints.pulse.mark("whisper")
                    sample.error = f"http_{reply.status}"
                    return sample
                answer = json.loads(await _body(reply))
                endpoints.pulse.mark("whisper")
                sample.text = _text(answer["text"])
                sample.compute_s = _amount(answer["compute_s"]) if "compute_s" in answer else None
                sample.done = time.monotonic()
    except (TimeoutError, aiohttp.ServerTimeoutError):
        sample.error = "timeout"
    except (aiohttp.ClientError, OSError):
        sample.error = "connection"
    except _NOT_AN_ANSWER:
        sample.error = "bad_payload"
    if sample.error is None and not sample.text:
        sample.error = "empty_transcript"
    return sample


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raise ValueError if it is longer than any transcript, because another program's answer must not fill this one's
    memory."""
    body = bytearray()
    async for part in reply.content.iter_any():
        body += part
        if len(body) > _MAX_BYTES:
            raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes")
    return bytes(body)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value.strip()


def _amount(value: object) -> float:
    """Return the value if it is a finite number from 0. Raise ValueError otherwise."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("no amount")
    return value


def _left(due: float, timeout_s: float) -> float:
    """Return the seconds left until the time-out, which runs from the due time: waiting in the client counts."""
    return max(0.001, due + timeout_s - time.monotonic())
