"""What one evaluation yields: a measurement, or the reason why there is none.

Impossible states cannot be made: a measurement that is `ok` carries no failure, and one that is not carries no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How an evaluation ended."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    """Refused before launch."""
    FAILED = "failed"
    """Launched, and did not yield a measurement."""


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
        """Whether a second try may pass."""
        return self.kind in RETRYABLE

    def as_dict(self) -> dict[str, Any]:
        """For a candidate's line in the artifacts."""
        return {**asdict(self), "retryable": self.retryable}


class ServiceError(Exception):
    """Carries a `Failure` from where it is seen to where it is recorded."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.service}: {failure.kind} while in {failure.phase}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True)
class Timings:
    """Where the seconds of an evaluation went."""

    start_s: dict[str, float] = field(default_factory=dict)
    """Per service, and `memory_stable`; an engine that was re-used has 0."""
    warm_s: float = 0.0
    load_s: float = 0.0
    """Time under load that was measured: windows, solo windows and the capacity ramp."""
    stop_s: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts (`duration_s`)."""
        return {
            "start": round(sum(self.start_s.values()), 3),
            "start_by_part": {k: round(v, 3) for k, v in self.start_s.items()},
            "warm": round(self.warm_s, 3),
            "load": round(self.load_s, 3),
            "stop": round(sum(self.stop_s.values()), 3),
            "stop_by_part": {k: round(v, 3) for k, v in self.stop_s.items()},
        }


@dataclass(frozen=True)
class Measurement:
    """The outcome of one evaluation of one candidate.

    Raises:
        ValueError: if the status and what it carries contradict one another.
    """

    status: Status
    device: str
    """`cuda`, `cpu`, `replayed` or `simulated`."""
    failure: Failure | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    n_windows: int = 0
    timings: Timings = field(default_factory=Timings)
    engine_reused: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the engine said of itself: KV-cache tokens, greatest concurrency, version."""
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    """Host and device (`DeviceInfo`), for on a cluster each trial has its own; empty if the device was not yet looked at."""

    def __post_init__(self) -> None:
        if (self.status is Status.OK) != (self.failure is None):
            raise ValueError(f"a measurement that is {self.status} {'carries no' if self.failure else 'needs a'} failure")
        if self.status is not Status.OK and self.metrics:
            raise ValueError(f"a measurement that is {self.status} has no metrics: a number is a measurement or it is absent")
        if self.status is Status.OK and self.n_windows < 1:
            raise ValueError("a measurement that is ok has at least one window")

    @classmethod
    def failed(cls, failure: Failure, device: str, **rest: Any) -> Measurement:
        """An evaluation that was launched in vain, or refused (phase `preflight`)."""
        status = Status.INFEASIBLE if failure.phase is Phase.PREFLIGHT else Status.FAILED
        return cls(status=status, device=device, failure=failure, **rest)
