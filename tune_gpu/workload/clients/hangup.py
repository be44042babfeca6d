"""Close the stream of a request whose caller wants no more of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field


@dataclass
class Hangup:
    """A caller's way to end requests: `now()` closes the streams of all that carry it, at once and from then on.

    It is neutral: the request neither failed nor was it answered to its end.
    """

    at: float | None = None
    """When the caller hung up (monotonic clock, seconds); None as long as the requests go on."""
    _limits: list[asyncio.Timeout] = field(default_factory=list, repr=False, compare=False)

    def now(self) -> None:
        """Close the streams. Call it in the event loop of the requests; a second call does nothing."""
        if self.at is not None:
            return
        self.at = time.monotonic()
        for limit in self._limits:
            with contextlib.suppress(RuntimeError):  # of a request that has ended
                limit.reschedule(0.0)

    def limit(self, seconds: float) -> asyncio.Timeout:
        """Return the time limit of a request that this ends as well. It raises TimeoutError, as every time limit does."""
        limit = asyncio.timeout(seconds if self.at is None else 0.0)
        self._limits.append(limit)
        return limit
