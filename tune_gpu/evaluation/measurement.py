"""The result of one evaluation: a measurement, or the reason why there is none.

Impossible states cannot be made: a measurement that is `ok` carries no failure, and one that is not carries no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts.records.evaluation import Durations
from tune_gpu.common.failures import Failure, Phase, Status


@dataclass(frozen=True)
class Timings:
    """How long each part of an evaluation took."""

    start_s: dict[str, float] = field(default_factory=dict)
    """By service, and `memory_stable`; 0 for an engine that was reused."""
    warm_s: float = 0.0
    load_s: float = 0.0
    """Time under measured load: windows, solo windows and the capacity ramp."""
    stop_s: dict[str, float] = field(default_factory=dict)

    def durations(self) -> Durations:
        """Return the seconds as artifacts hold them (`duration_s`)."""
        return Durations(
            start=round(sum(self.start_s.values()), 3),
            start_by_part={k: round(v, 3) for k, v in self.start_s.items()},
            warm=round(self.warm_s, 3),
            load=round(self.load_s, 3),
            stop=round(sum(self.stop_s.values()), 3),
            stop_by_part={k: round(v, 3) for k, v in self.stop_s.items()},
        )


@dataclass(frozen=True)
class Score:
    """How well a candidate did by the objective."""

    fitness: float | None
    """None if a constraint is violated or a term was not measured."""
    stderr: float | None = None
    """Standard error of the fitness over the windows; None if it is unknown."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """Constraint -> by how much it is exceeded, as a share of its limit."""


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
    score: Score | None = None
    """None without a measurement."""
    n_windows: int = 0
    timings: Timings = field(default_factory=Timings)
    engine_reused: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the engine reported: KV-cache tokens, greatest concurrency, version."""
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    """Host and device (`DeviceInfo`), because each trial of a cluster has its own; empty if the device was not opened."""

    def __post_init__(self) -> None:
        if (self.status is Status.OK) != (self.failure is None):
            raise ValueError(f"a measurement that is {self.status} {'carries no' if self.failure else 'needs a'} failure")
        if self.status is not Status.OK and self.metrics:
            raise ValueError(f"a measurement that is {self.status} has no metrics: a number is a measurement or it is absent")
        if self.status is Status.OK and self.n_windows < 1:
            raise ValueError("a measurement that is ok has at least one window")
        if (self.status is Status.OK) != (self.score is not None):
            raise ValueError(f"a measurement that is {self.status} {'needs a' if self.score is None else 'has no'} score")

    @classmethod
    def failed(cls, failure: Failure, device: str, **rest: Any) -> Measurement:
        """Return the measurement of an evaluation that failed, or was refused before launch (phase `preflight`)."""
        status = Status.INFEASIBLE if failure.phase is Phase.PREFLIGHT else Status.FAILED
        return cls(status=status, device=device, failure=failure, **rest)
