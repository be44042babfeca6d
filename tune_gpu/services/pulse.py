"""Signs of life: which service has been asked something and has said nothing since."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class ActivityTracker:
    """Written by the clients in the load generator's thread, read by a watch in another; each write is one assignment."""

    waiting: dict[str, int] = field(default_factory=dict)
    """Service -> requests that it has been sent and has not finished."""
    heard: dict[str, float] = field(default_factory=dict)
    """Service -> when it last said anything, or was first asked after a pause (monotonic clock, seconds)."""

    @contextlib.contextmanager
    def asking(self, service: str) -> Iterator[None]:
        """For as long as one request is under way."""
        if not self.waiting.get(service):
            self.heard[service] = time.monotonic()
        self.waiting[service] = self.waiting.get(service, 0) + 1
        try:
            yield
        finally:
            self.waiting[service] -= 1

    def hear(self, service: str) -> None:
        """It has said something: a chunk of an answer, or all of it."""
        self.heard[service] = time.monotonic()

    def silent_since(self, service: str) -> float | None:
        """Since when it owes an answer without a word; null if it owes none."""
        return self.heard.get(service) if self.waiting.get(service) else None
