"""What can fail, in which phase, and which failures may pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Where in an evaluation something happened."""

    PREFLIGHT = "preflight"
    START = "start"
    WARM = "warm"
    LOAD = "load"
    STOP = "stop"


class FailureKind(StrEnum):
    """Why there is no measurement. Opposite causes have opposite repairs, so they have different names."""

    INFEASIBLE = "infeasible"
    STARTUP_NO_KV_MEMORY = "startup_no_kv_memory"
    """The share cannot hold the cache blocks: more share, or a shorter context."""
    STARTUP_OOM = "startup_oom"
    """More was asked than is free: a smaller share, fewer sequences, int8."""
    STARTUP_TIMEOUT = "startup_timeout"
    STARTUP_CRASH = "startup_crash"
    PORT_CONFLICT = "port_conflict"
    WRONG_DEVICE = "wrong_device"
    WRONG_SERVER = "wrong_server"
    """The server that answers is not the one that was started."""
    SERVICE_LOST = "service_lost"
    """It died while it was measured."""
    SERVICE_HUNG = "service_hung"
    """It is there, and answers neither its health check nor any request."""
    OOM = "oom"
    """Out of memory under load, by its own word (CUDA's, an allocator's): a smaller share."""
    OOM_KILLED = "oom_killed"
    """The kernel killed it for want of host memory, starting or under load."""
    REQUESTS_FAILED = "requests_failed"
    """It runs, but answers nothing that could be measured."""
    MEASUREMENT_INVALID = "measurement_invalid"
    MEMORY_NOT_RETURNED = "memory_not_returned"


RETRYABLE = frozenset({FailureKind.PORT_CONFLICT, FailureKind.STARTUP_TIMEOUT, FailureKind.SERVICE_LOST, FailureKind.MEASUREMENT_INVALID})
"""What may pass on a second try. Everything else is deterministic: trying again wastes the device's time."""


@dataclass(frozen=True)
class Failure:
    """Why an evaluation has no measurement, as data."""

    kind: FailureKind
    service: str
    """`vllm`, `whisper` or `tune_gpu`."""
    phase: Phase
    message: str
    evidence: str = ""
    """The decisive line of the service's log."""
    shortfall: float = 0.0
    """By how much it missed, as a share of what it needed (0 where nothing is known): ranks failures among themselves."""

    @property
    def retryable(self) -> bool:
        """Return whether a second try may pass."""
        return self.kind in RETRYABLE

    def as_dict(self) -> dict[str, Any]:
        """For a candidate's line in the artifacts."""
        return {**asdict(self), "retryable": self.retryable}


class ServiceError(Exception):
    """Carries a `Failure` from where it is seen to where it is recorded."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.service}: {failure.kind} while in {failure.phase}: {failure.message}")
        self.failure = failure
