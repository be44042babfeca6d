"""A streamed answer of an LLM. The clients of completions and of chats differ in the request and in where a chunk has its text."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.workload.clients.call import MAX_BYTES, Call, amount_of, body_of, failure_as_value, ms_between
from tune_gpu.workload.clients.refusals import CONTEXT_TOO_LONG, is_too_long, refusal_of

_MAX_BYTES_PER_TOKEN = 4096
"""Of a stream. vLLM's chunks have some 300 bytes."""
_REFUSAL_BYTES = 2**16

TextOf = Callable[[Mapping[str, Any]], str | None]
"""Returns the text of a chunk's choice, which may be empty, or None if the chunk has no token."""


@dataclass
class GenerationSample:
    """One streamed answer. Times are of the monotonic clock, in seconds."""

    due: float
    chunk_times: list[float] = field(default_factory=list)
    n_tokens: int = 0
    error: str | None = None
    text: str = ""
    """What arrived of it; of an answer that failed, nothing."""
    prompt_tokens: int | None = None
    """Tokens of the prompt by the server's count; None where it reports none."""
    cached_tokens: int | None = None
    """Those of them that it found in its prefix cache. vLLM reports them with `--enable-prompt-tokens-details`."""
    cancelled: bool = False
    """The caller hung up before the end. That is no failure: what arrived until then is measured."""
    finish_reason: str | None = None
    """Why the answer ended, as the server says it: `length`, `stop` …"""
    ended_early: bool = False
    """The model ended its answer before the requested length, on a server that does not know `ignore_eos`."""

    @property
    def first_output(self) -> float | None:
        """Return when the first token arrived, or None."""
        return self.chunk_times[0] if self.chunk_times else None

    @property
    def done(self) -> float | None:
        """Return when the last token arrived, or None if the request failed or was cancelled."""
        return self.chunk_times[-1] if self.chunk_times and not self.error and not self.cancelled else None

    @property
    def output(self) -> str | None:
        """Return the text, or None if the request failed."""
        return None if self.error else self.text

    @property
    def ttft_ms(self) -> float | None:
        """Return the milliseconds from the due time to the first token, or None."""
        return ms_between(self.due, self.first_output, self.error)

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the last token, or None."""
        return ms_between(self.due, self.done, self.error)

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


@dataclass(frozen=True)
class Length:
    """How long an answer is."""

    tokens: int
    natural: bool = False
    """The model may end it before."""
    refused: bool = False
    """A server whose context has no place for all of it is asked to refuse the request, rather than to cut the answer."""

    def as_dict(self, *, known: bool) -> dict[str, object]:
        """Return it as a request has it. `known`: the server knows fields beyond OpenAI's API."""
        found: dict[str, object] = {"max_tokens": self.tokens}
        if known and not self.natural:
            found["ignore_eos"] = True
            if self.refused:
                found["min_tokens"] = self.tokens
        return found


async def generate(call: Call, path: str, prompt: Mapping[str, object], token_text: TextOf, length: Length | None = None) -> GenerationSample:
    """Stream one answer, and record when each chunk of tokens arrives.

    Without the closing `[DONE]` the error is `truncated_stream`, without a token `empty_answer`, with fewer tokens than requested
    `short_answer`, and `context_too_long` where the server says so. No end-of-text token ends an answer whose length is given, but vLLM cuts it
    where the context is full, and a candidate with too short a context would win by shorter answers. If the server does not know `ignore_eos`,
    an answer that the model ended is no failure, but marked.

    Args:
        call: how the request is sent.
        path: of the API.
        prompt: the part of the request that the APIs do not share.
        token_text: returns the text of a chunk's choice.
        length: of the answer; None for `call.max_tokens`.
    """
    sample, length = GenerationSample(call.due), length or Length(call.max_tokens)
    body = {
        "model": call.endpoint.model,
        **prompt,
        **length.as_dict(known=call.endpoint.ignore_eos),
        **call.extensions,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    finished = False
    with failure_as_value(sample, cut_off="truncated_stream"), call.pulse.request(call.service):
        finished = await _stream(call, path, body, token_text, sample, length.tokens)
    if call.hung_up(sample.error):
        sample.error, sample.cancelled = None, True
    elif sample.error is None and not finished:
        sample.error = "truncated_stream"
    elif sample.error is None and not sample.chunk_times:
        sample.error = "empty_answer"
    elif sample.error is None and sample.finish_reason == "stop" and not (length.natural or call.endpoint.ignore_eos):
        sample.ended_early = max(sample.n_tokens, len(sample.chunk_times)) < length.tokens
    elif sample.error is None and not length.natural and 0 < sample.n_tokens < length.tokens:  # 0: the server has not reported the number
        sample.error = "short_answer"
    if sample.error is not None:
        sample.text = ""
    sample.n_tokens = max(sample.n_tokens, len(sample.chunk_times))
    return sample


async def _stream(call: Call, path: str, body: Mapping[str, object], token_text: TextOf, sample: GenerationSample, tokens: int) -> bool:
    """Send the request and read its stream into the sample. Return True if the stream ended as it should."""
    left = MAX_BYTES + _MAX_BYTES_PER_TOKEN * tokens
    async with call.limit(), call.session.post(call.url(path), json=body, headers=call.headers, allow_redirects=False) as reply:
        # A 200 is no sign of life: vLLM's server sends it before its engine has done anything. Any other status is the whole answer.
        if reply.status != 200:
            call.mark()
            with contextlib.suppress(ValueError):
                sample.error = f"http_{reply.status}"
                sample.error = refusal_of(reply.status, await body_of(reply, _REFUSAL_BYTES))
            return False
        async for line in reply.content:
            left -= len(line)
            if left < 0:
                raise ValueError("the answer does not end")
            if not line.startswith(b"data:"):
                continue
            now, payload = time.monotonic(), line[5:].strip()
            call.mark()
            if payload == b"[DONE]":
                return True
            _take_chunk(sample, json.loads(payload), now, token_text, call.on_text)
    return False


def _take_chunk(sample: GenerationSample, chunk: dict[str, Any], now: float, token_text: TextOf, on_text: Callable[[str], None] | None) -> None:
    if "error" in chunk:
        sample.error = CONTEXT_TOO_LONG if is_too_long(chunk["error"]) else "stream_error"
    choices = chunk.get("choices")
    if choices:
        sample.finish_reason = choices[0].get("finish_reason") or sample.finish_reason
        if (text := token_text(choices[0])) is not None:
            sample.chunk_times.append(now)
            sample.text += text
            if on_text is not None and text:
                on_text(text)
    usage = chunk.get("usage")
    if isinstance(usage, dict):
        _take_usage(sample, usage)


def _take_usage(sample: GenerationSample, usage: Mapping[str, Any]) -> None:
    sample.n_tokens = int(amount_of(usage["completion_tokens"]))
    if usage.get("prompt_tokens") is not None:
        sample.prompt_tokens = int(amount_of(usage["prompt_tokens"]))
    details = usage.get("prompt_tokens_details")
    if isinstance(details, Mapping) and details.get("cached_tokens") is not None:
        sample.cached_tokens = int(amount_of(details["cached_tokens"]))
