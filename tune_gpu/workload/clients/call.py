"""What every client needs: how a request is sent, what it returns, and how a failure becomes a value."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.clients.hangup import Hangup

MAX_BYTES = 4 * 2**20
"""Longest answer that is not a stream."""
_NOT_AN_ANSWER = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, HttpProcessingError)
"""Errors that reading a malformed answer may raise; aiohttp's own is that of a line without an end."""


@dataclass(frozen=True)
class Audio:
    """Speech as a file."""

    wav: bytes
    seconds: float


Content = str | Audio
"""What a service takes and answers."""


class Sample(Protocol):
    """One request. Times are of the monotonic clock, in seconds."""

    due: float
    error: str | None

    @property
    def first_output(self) -> float | None:
        """Return when the first part of the answer arrived (a token, audio, or all of it), or None."""

    @property
    def done(self) -> float | None:
        """Return when the answer was complete, or None if it failed."""

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the complete answer, or None if it failed."""

    @property
    def output(self) -> Content | None:
        """Return what the next stage of a turn gets, or None if the request failed."""


class AnsweredAtOnce:
    """What samples share whose answer is one text that arrives as a whole."""

    due: float
    done: float | None
    text: str
    error: str | None

    @property
    def first_output(self) -> float | None:
        """Return when the answer arrived, or None."""
        return self.done

    @property
    def output(self) -> str | None:
        """Return the text, or None if the request failed."""
        return None if self.error else self.text

    @property
    def latency_ms(self) -> float | None:
        """Return the milliseconds from the due time to the answer, or None."""
        return ms_between(self.due, self.done, self.error)


@dataclass(frozen=True)
class Call:
    """How one request is sent."""

    session: aiohttp.ClientSession
    endpoint: Endpoint
    due: float
    """Monotonic clock, seconds."""
    timeout_s: float
    """From the due time: waiting in the client counts."""
    service: str = ""
    """Name under which its activity is recorded."""
    pulse: ActivityTracker = field(default_factory=ActivityTracker)
    cache_salt: str | None = None
    """Requests share the engine's prefix cache only with those of the same salt (vLLM's `cache_salt`). None shares it with all."""
    max_tokens: int = 0
    """Length of a generated answer."""
    voice: str | None = None
    """The voice that speech is asked for; None leaves it to the server."""
    vector_sizes: dict[str, int] = field(default_factory=dict)
    """Service -> size of its first embedding, which all others must have."""
    hangup: Hangup | None = None
    """Ends the request early; None for a request that nobody cancels."""
    on_text: Callable[[str], None] | None = None
    """Receives each part of a streamed text as it arrives."""
    on_first: Callable[[float], None] | None = None
    """Receives the time of the first audio as it arrives."""

    @property
    def left_s(self) -> float:
        """Return the seconds left until the time-out."""
        return max(0.001, self.due + self.timeout_s - time.monotonic())

    def limit(self) -> asyncio.Timeout:
        """Return the limit within which the request is answered, unless its caller hangs up before."""
        return asyncio.timeout(self.left_s) if self.hangup is None else self.hangup.limit(self.left_s)

    def hung_up(self, error: str | None) -> bool:
        """Return whether a request with this error was ended by its caller."""
        return error == "timeout" and self.hangup is not None and self.hangup.at is not None

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers with the service's key."""
        return {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}

    @property
    def extensions(self) -> dict[str, object]:
        """Return the fields beyond OpenAI's API that every client may add; empty for a server that knows none."""
        return {"cache_salt": self.cache_salt} if self.cache_salt is not None and self.endpoint.ignore_eos else {}

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return self.endpoint.url.rstrip("/") + path

    def mark(self) -> None:
        """Record a sign of life of the service."""
        self.pulse.mark(self.service)


class _Failing(Protocol):
    error: str | None


@contextlib.contextmanager
def failure_as_value(sample: _Failing, *, cut_off: str) -> Iterator[None]:
    """Write a failure within the block into the sample.

    Args:
        sample: of the request.
        cut_off: the error of an answer that breaks off in its middle.
    """
    try:
        yield
    except (TimeoutError, aiohttp.ServerTimeoutError):
        sample.error = "timeout"
    except (aiohttp.ClientPayloadError, asyncio.IncompleteReadError):
        sample.error = cut_off
    except (aiohttp.ClientError, OSError):
        sample.error = "connection"
    except _NOT_AN_ANSWER:
        sample.error = "bad_payload"


async def body_of(reply: aiohttp.ClientResponse, limit: int = MAX_BYTES) -> bytes:
    """Return the body. Raise ValueError if it is longer than the limit: another program's answer must not fill the memory of this one."""
    body = bytearray()
    async for part in reply.content.iter_any():
        body += part
        if len(body) > limit:
            raise ValueError(f"the answer is longer than {limit} bytes")
    return bytes(body)


def text_of(value: object) -> str:
    """Return the stripped text. Raise TypeError for another type."""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value.strip()


def amount_of(value: object) -> float:
    """Return the value if it is a finite number from 0. Raise ValueError otherwise."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("no amount")
    return value


def ms_between(due: float, at: float | None, error: str | None) -> float | None:
    """Return the milliseconds from the due time, or None if the request failed or never got so far."""
    return None if error or at is None else (at - due) * 1e3
