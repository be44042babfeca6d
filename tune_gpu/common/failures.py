"""Kinds of failure, the phases in which they happen, and which of them are worth a second try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Phase of an evaluation."""

    PREFLIGHT = "preflight"
    START = "start"
    WARM = "warm"
    LOAD = "load"
    STOP = "stop"


class Status(StrEnum):
    """How an evaluation ended."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    """Refused before launch."""
    FAILED = "failed"
    """Launched, but not measured."""


class FailureKind(StrEnum):
    """Reason why an evaluation has no measurement. Opposite causes have opposite repairs, so they have different names."""

    INFEASIBLE = "infeasible"
    STARTUP_NO_KV_MEMORY = "startup_no_kv_memory"
    """The share of the card cannot hold the cache blocks. A larger share or a shorter context helps."""
    STARTUP_OOM = "startup_oom"
    """The service asked for more memory than is free. A smaller share, fewer sequences or int8 helps."""
    STARTUP_TIMEOUT = "startup_timeout"
    STARTUP_CRASH = "startup_crash"
    PORT_CONFLICT = "port_conflict"
    WRONG_DEVICE = "wrong_device"
    WRONG_SERVER = "wrong_server"
    """Another server answers than the one that was started."""
    SERVICE_LOST = "service_lost"
    """The service died while it was measured."""
    SERVICE_HUNG = "service_hung"
    """The process is alive, but answers neither its health check nor any request."""
    OOM = "oom"
    """Out of memory under load, as CUDA or an allocator reports it. A smaller share helps."""
    OOM_KILLED = "oom_killed"
    """The kernel killed the service because host memory ran out, while it started or under load."""
    REQUESTS_FAILED = "requests_failed"
    """The service runs, but no answer could be measured."""
    MEASUREMENT_INVALID = "measurement_invalid"
    MEMORY_NOT_RETURNED = "memory_not_returned"


RETRYABLE = frozenset({FailureKind.PORT_CONFLICT, FailureKind.STARTUP_TIMEOUT, FailureKind.SERVICE_LOST, FailureKind.MEASUREMENT_INVALID})
"""Failures that may not recur on a second try. All others are deterministic: a second try would waste the device's time."""


@dataclass(frozen=True)
class Failure:
    """Reason why an evaluation has no measurement, as data."""

    kind: FailureKind
    service: str
    """`vllm`, `whisper` or `tune_gpu`."""
    phase: Phase
    message: str
    evidence: str = ""
    """The decisive line of the service's log."""
    shortfall: float = 0.0
    """How much was missing, as a share of what was needed (0 if unknown). It ranks failures among themselves."""

    @property
    def retryable(self) -> bool:
        """Return True if a second try may succeed."""
        return self.kind in RETRYABLE

    def as_dict(self) -> dict[str, Any]:
        """Return the failure as a candidate's line in the artifacts has it."""
        return {**asdict(self), "retryable": self.retryable}


class ServiceError(Exception):
    """Carry a `Failure` from where it is detected to where it is recorded."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.service}: {failure.kind} while in {failure.phase}: {failure.message}")
        self.failure = failure
