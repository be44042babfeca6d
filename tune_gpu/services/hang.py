"""Detect a hung service: its process is alive, but does not answer.

There are two signs, each of which must last for the time-out. Either the service does not answer its health check (it was stopped, or its
event loop is blocked), or it sends nothing for any request in flight (its engine is blocked behind a healthy server). Time in which this
process itself was suspended does not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.services.pulse import ActivityTracker

_EVERY_S = 0.5
_HEALTH_TIMEOUT_S = 1.0


class Checked(Protocol):
    """A service with a health check."""

    def healthy(self, timeout_s: float) -> bool:
        """Return True if it answers."""


class HangWatch:
    """Watch services from a thread within a block: `with HangWatch(services, pulse, timeout_s) as watch: …; watch.failure()`.

    Args:
        services: name (as in the pulse) -> service.
        pulse: activity of the load on them; None where the first answer may take long (a warm-up compiles).
        timeout_s: how long a service may be silent; 0 or less switches the watch off.
    """

    def __init__(self, services: Mapping[str, Checked], pulse: ActivityTracker | None, timeout_s: float, phase: Phase = Phase.LOAD) -> None:
        self._services, self._pulse, self._timeout_s, self._phase = dict(services), pulse, timeout_s, phase
        self._sick_s = dict.fromkeys(self._services, 0.0)
        self._silent_s = dict.fromkeys(self._services, 0.0)
        self._found: Failure | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tune-gpu-hang-watch", daemon=True)

    def __enter__(self) -> HangWatch:
        if self._timeout_s > 0:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def failure(self) -> Failure | None:
        """Return the hang that was found, or None."""
        return self._found

    def _run(self) -> None:
        seen = time.monotonic()
        longest_round_s = _EVERY_S + _HEALTH_TIMEOUT_S * len(self._services)
        while self._found is None and not self._stop.wait(_EVERY_S):
            answers = {name: service.healthy(_HEALTH_TIMEOUT_S) for name, service in self._services.items()}
            now = time.monotonic()
            self._count(answers, now, min(now - seen, 2 * longest_round_s))
            seen = now

    def _count(self, healthy: Mapping[str, bool], now: float, passed_s: float) -> None:
        """Record one round of checks, which took `passed_s` (bounded by the caller)."""
        for name in self._services:
            self._sick_s[name] = 0.0 if healthy[name] else self._sick_s[name] + passed_s
            since = self._pulse.idle_since(name) if self._pulse else None
            silent = since is not None and now - since >= passed_s
            self._silent_s[name] = self._silent_s[name] + passed_s if silent else 0.0
            if max(self._sick_s[name], self._silent_s[name]) >= self._timeout_s:
                sign = "its health check" if self._sick_s[name] >= self._timeout_s else "any request in flight"
                message = f"the process is alive, but has not answered {sign} for {self._timeout_s:g} s (run.hang_timeout_s)"
                self._found = Failure(FailureKind.SERVICE_HUNG, name, self._phase, message)
                return
