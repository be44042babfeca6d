"""The two clients: speech to text, and streamed completions. What goes wrong with a request is a value, never a latency."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from dataclasses import dataclass, field, replace

import aiohttp

from tune_gpu.services.pulse import ActivityTracker

_MAX_BYTES = 4 * 2**20
_NOT_AN_ANSWER = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading anything but an answer may raise."""


@dataclass(frozen=True)
class Endpoints:
    """Where the services under test are, and the keys that they ask for."""

    llm_url: str
    llm_model: str
    llm_key: str
    stt_url: str
    stt_key: str
    pulse: ActivityTracker = field(default_factory=ActivityTracker, compare=False)
    cache_salt: str | None = None
    """What the engine's prefix cache knows under another salt is of no use to a request (vLLM's `cache_salt`); null shares it with all."""

    def with_cold_cache(self) -> Endpoints:
        """The same, for a stretch of load that finds nothing of those before in the prefix cache. All candidates get the same prompts: to the one
        that re-uses an engine they would cost less than to the one that starts its own, and a window that is measured again less than at first."""
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
        """Due to first token."""
        return None if self.error or not self.chunk_times else (self.chunk_times[0] - self.due) * 1e3

    @property
    def latency_ms(self) -> float | None:
        """Due to last token."""
        return None if self.error or not self.chunk_times else (self.chunk_times[-1] - self.due) * 1e3

    @property
    def itl_ms(self) -> list[float]:
        """Gaps between tokens; where a chunk carried several, the mean gap of the answer, once for each."""
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
        """Due to transcript."""
        return None if self.error or self.done is None else (self.done - self.due) * 1e3

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds of computing for one second of speech."""
        return None if self.error or self.compute_s is None or self.audio_s <= 0 else self.compute_s / self.audio_s


async def complete(
    session: aiohttp.ClientSession, endpoints: Endpoints, prompt: str, *, max_tokens: int, due: float, timeout_s: float
) -> LlmSample:
    """Stream one completion (OpenAI's `/v1/completions`), noting when each chunk of tokens arrives.

    A chunk counts if it carries a choice, even one without text: a token may be part of a character. An answer without the closing
    `[DONE]` is `truncated_stream`, one without a token `empty_answer`, one with fewer than were asked for `short_answer`: no end-of-text token
    ends it, but vLLM cuts it where the context is full, and a candidate with too short a context would win by saying less.
    """
    sample = LlmSample(due)
    body = {
        "model": endpoints.llm_model,
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
        with endpoints.pulse.asking("vllm"):
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
        elif sample.error is None and 0 < sample.n_tokens < max_tokens:  # 0: the server has not told
            sample.error = "short_answer"
    sample.n_tokens = max(sample.n_tokens, len(sample.chunk_times))
    return sample


async def _stream(
    session: aiohttp.ClientSession, endpoints: Endpoints, body: dict[str, object], sample: LlmSample, timeout_s: float
) -> bool:
    """Return whether the stream was closed as it should be."""
    headers = {"Authorization": f"Bearer {endpoints.llm_key}"}
    async with asyncio.timeout(timeout_s), session.post(f"{endpoints.llm_url}/v1/completions", json=body, headers=headers, allow_redirects=False) as reply:
        if reply.status != 200:  # all of an answer; that one has begun is none yet: vLLM's server says so before its engine has done anything
            endpoints.pulse.hear("vllm")
            sample.error = f"http_{reply.status}"
            return False
        async for line in reply.content:
            if not line.startswith(b"data:"):
                continue
            now, payload = time.monotonic(), line[5:].strip()
            endpoints.pulse.hear("vllm")
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
    """Transcribe one clip (OpenAI's `/v1/audio/transcriptions`). A transcript of nothing is `empty_transcript`."""
    sample = SttSample(due, audio_s=audio_s)
    form = aiohttp.FormData()
    form.add_field("file", wav, filename="utterance.wav", content_type="audio/wav")
    form.add_field("model", "whisper")
    form.add_field("response_format", "json")
    headers = {"Authorization": f"Bearer {endpoints.stt_key}"}
    url = f"{endpoints.stt_url}/v1/audio/transcriptions"
    try:
        with endpoints.pulse.asking("whisper"):
            async with asyncio.timeout(_left(due, timeout_s)), session.post(url, data=form, headers=headers, allow_redirects=False) as reply:
                if reply.status != 200:
                    endpoints.pulse.hear("whisper")
                    sample.error = f"http_{reply.status}"
                    return sample
                answer = json.loads(await _body(reply))
                endpoints.pulse.hear("whisper")
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
    """Raises ValueError for more than any transcript: another program's answer must not fill this one's memory."""
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
    """A number that can be counted or measured: NaN, infinity and what is below 0 cannot."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("no amount")
    return value


def _left(due: float, timeout_s: float) -> float:
    """The time-out runs from the due time: waiting in the client is waiting."""
    return max(0.001, due + timeout_s - time.monotonic())
