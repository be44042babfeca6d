"""Record the activity of services under load: requests in flight, and the time of the last sign of life."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class ActivityTracker:
    """Written by the clients in the load generator's thread, read by a watch in another; each write is one assignment."""

    waiting: dict[str, int] = field(default_factory=dict)
    """Service -> requests that were sent and are unfinished."""
    most: dict[str, int] = field(default_factory=dict)
    """Service -> most requests that it had at once. Whoever begins a stretch of load clears it."""
    marked: dict[str, float] = field(default_factory=dict)
    """Service -> time of its last sign of life, or of the first request after a pause (monotonic clock, seconds)."""

    @contextlib.contextmanager
    def request(self, service: str) -> Iterator[None]:
        """Count a request as in flight within the block."""
        if not self.waiting.get(service):
            self.marked[service] = time.monotonic()
        self.waiting[service] = self.waiting.get(service, 0) + 1
        self.most[service] = max(self.waiting[service], self.most.get(service, 0))
        try:
            yield
        finally:
            self.waiting[service] -= 1

    def mark(self, service: str) -> None:
        """Record a sign of life: a chunk of an answer, or all of it."""
        self.marked[service] = time.monotonic()

    def idle_since(self, service: str) -> float | None:
        """Return since when the service has owed an answer without a sign of life, or None if it owes none."""
        return self.marked.get(service) if self.waiting.get(service) else None
