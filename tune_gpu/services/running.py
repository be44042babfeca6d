"""What the services of a candidate have in common, whatever kind they are and wherever they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tune_gpu.common.failures import Failure
from tune_gpu.telemetry.counters import COUNTER

InfoT = TypeVar("InfoT", covariant=True)
KV_CACHE_PCT = "kv_cache_pct"
"""The gauge of a service with a KV cache: its share in use, in per cent."""
RUNNING, WAITING = "running", "waiting"
"""The gauges of a service that schedules requests: those it works on, and those that wait in it."""
PREFIX_QUERIES, PREFIX_HITS = f"prefix_queries{COUNTER}", f"prefix_hits{COUNTER}"
"""The counters of a prefix cache, in tokens: those that were looked for, and those that were found."""
PREEMPTED = f"preempted{COUNTER}"
"""The counter of requests that lost their place in the cache to others, and must be computed again."""
QUEUED_S, QUEUED = f"queued_s{COUNTER}", f"queued{COUNTER}"
"""The counters of a queue: the seconds that finished requests waited in it, and how many these are."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service answers, the key that a request must carry, and the name of its model."""

    url: str
    key: str
    model: str = ""
    ignore_eos: bool = True
    """A request may carry fields beyond OpenAI's API: `ignore_eos`, which gives an answer its length, and `cache_salt`."""
    voice: str | None = None
    """The voice that the service is set to speak with, which requests then ask for; None if it has no such setting."""


class RunningService(Protocol[InfoT]):
    """One service of a candidate, from before its start until after its end. `InfoT` is what it reports of itself when it is ready."""

    @property
    def endpoint(self) -> Endpoint:
        """Return where it answers."""

    @property
    def info(self) -> InfoT | None:
        """Return what it reported when it was ready, or None before."""

    @property
    def start_s(self) -> float | None:
        """Return how long its start took, in seconds, or None before it was ready."""

    def start(self, abort: Callable[[], str | None] = ...) -> InfoT:
        """Start it and wait until it is ready and proven to be this one; give up once `abort` returns a reason.

        Raises:
            ServiceError: it did not start; nothing of it is left running.
        """

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured, or None while it runs. Never waits."""

    def healthy(self, timeout_s: float) -> bool:
        """Return whether it answers its health check within the time-out."""

    def pids(self) -> list[int]:
        """Return the ids of all its processes."""

    def log(self) -> str:
        """Return what it has printed."""

    def gauges(self) -> Mapping[str, float]:
        """Return its readings of this moment by name, for example `kv_cache_pct`, and its counters (`COUNTER`); what it does not give is missing."""

    def stop(self) -> None:
        """End it and return when its processes have gone. A second call does nothing."""
