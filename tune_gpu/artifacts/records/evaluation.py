"""One evaluation: a line of `gen_<n>_candidates.jsonl`, its report to Tune, and its result for the search."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.common.failures import Status
from tune_gpu.metrics import ENDED_EARLY_PCT
from tune_gpu.search.evaluations import Result
from tune_gpu.search.reports import read_report

METRIC, MODE = "fitness", "max"
"""The metric that a run optimises, and its direction."""


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Record):
    """Why an evaluation has no measurement: `Failure` as artifacts hold it."""

    kind: str
    service: str = ""
    phase: str = ""
    message: str = ""
    evidence: str = ""
    """The decisive line of the service's log."""
    shortfall: float | None = 0.0
    retryable: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedAttempt(Record):
    """An attempt of an evaluation that failed and was retried."""

    kind: str
    service: str = ""
    phase: str = ""
    message: str = ""
    wall_s: float | None = None
    """None if the attempt's process was lost."""


@dataclass(frozen=True, kw_only=True)
class Durations(Record):
    """Where the seconds of an evaluation went."""

    start: float = 0.0
    start_by_part: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    """Seconds by service, and for `imports` and `memory_stable`. A reused engine has 0; a service that was never started is absent."""
    warm: float = 0.0
    load: float = 0.0
    """Seconds under measured load."""
    stop: float = 0.0
    stop_by_part: dict[str, float] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class EngineReport(Record):
    """The engine's report about itself. Its other values are kept as unknown fields."""

    kv_cache_tokens: int | None = None
    max_concurrency: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """A line of `gen_<n>_candidates.jsonl`. Its fields are the keys of the line."""

    schema_version: int = SCHEMA_VERSION
    candidate_id: str
    generation: int
    origin: str
    params: dict[str, Any]
    asked_after: int | None = None
    """How many results the search had when it proposed the candidate; None in old runs."""
    status: Status
    violation: float | None = 0.0
    transient: bool = False
    n_windows: int
    failure: FailureRecord | None
    fitness: float | None
    fitness_stderr: float | None = None
    objectives: dict[str, float | None] | None = field(default_factory=dict)
    violations: dict[str, float | None] = field(default_factory=dict)
    metrics: dict[str, Any]
    device: str = ""
    measured_on: DeviceRecord | None = None
    started_at: str = ""
    wall_s: float | None = 0.0
    duration_s: Durations
    engine_reused: bool
    engine: EngineReport = field(default_factory=EngineReport)
    n_retries: int = 0
    retries: tuple[FailedAttempt, ...] = ()
    told_after: int | None = field(default=None, metadata=OPTIONAL)
    """How many lines the run had before this one; set when the line is written."""
    traffic: str | None = field(default=None, metadata=OPTIONAL)
    """Hash of the traffic under which it was measured (`workload/traffic_hash.py`); None in old runs. Set when the line is written."""

    def contradiction(self) -> str | None:
        """Return which fields contradict one another, or None."""
        failed = self.failure is not None and self.status is not Status.INFEASIBLE
        return f"status {self.status} and failure contradict one another" if (self.status is Status.FAILED) != failed else None

    @property
    def outcome(self) -> str:
        """Return the outcome as all counts use it: `ok`, `against a constraint`, or another status. Only `ok` has a fitness."""
        return str(self.status) if self.status is not Status.OK or self.fitness is not None else "against a constraint"

    @property
    def known_fitness(self) -> float:
        """Return the fitness of a measured evaluation. Raise ValueError if there is none."""
        if self.fitness is None:
            raise ValueError(f"{self.candidate_id} has no fitness")
        return self.fitness

    @property
    def at_ceiling(self) -> bool:
        """Return True if the ramp ended before a step failed. Then the capacity is only a lower bound."""
        return self.metrics.get("capacity_at_ceiling") is True

    @property
    def saturated(self) -> bool | None:
        """Return True if more turns arrived than were served. False for runs of older programs, which did not record it.

        None if turns were answered too late, but are too few to distinguish a growing queue from slow answers.
        """
        found = self.metrics.get("saturation")
        state = found.get("saturated", False) if isinstance(found, Mapping) else False
        return None if state is None else state is True

    @property
    def ended_early_pct(self) -> Mapping[str, float]:
        """Return the share of each LLM's answers that ended before the length asked for; empty if none did."""
        named = {name.removesuffix(ENDED_EARLY_PCT).removesuffix("."): value for name, value in self.metrics.items() if name.endswith(ENDED_EARLY_PCT)}
        return {service: float(value) for service, value in named.items() if isinstance(value, (int, float)) and math.isfinite(value)}

    @property
    def of_sessions(self) -> bool:
        """Return True if its traffic was sessions, whose callers go on after an answer."""
        return isinstance(self.metrics.get("sessions"), Mapping)

    @property
    def clip_shares(self) -> Mapping[str, float]:
        """Return each clip's share of the fitness's error; its square is a part of the variance."""
        found = self.metrics.get("fitness_by_clip")
        shares = found.items() if isinstance(found, Mapping) else ()
        return {str(clip): float(share) for clip, share in shares if isinstance(share, (int, float)) and math.isfinite(share)}

    @property
    def repeat_stderr(self) -> float | None:
        """Return the standard error between deployments under the same traffic. It leaves out the choice of the clips."""
        parts = self.metrics.get("fitness_errors")
        if self.fitness_stderr is None or not isinstance(parts, Mapping):
            return self.fitness_stderr
        found = [parts.get(name) for name in ("windows", "capacity")]
        return math.hypot(*(float(part) for part in found if isinstance(part, (int, float)) and math.isfinite(part)))

    def after(self, attempts: Sequence[FailedAttempt]) -> EvaluationRecord:
        """Return the record with earlier attempts put before its own."""
        retries = (*attempts, *self.retries)
        return replace(self, retries=retries, n_retries=len(retries))

    def report(self) -> dict[str, Any]:
        """Return the report to Tune. The line travels as text because Tune would flatten it."""
        return self._reported() | {"line_json": json.dumps(self.dump())}

    def result(self, objectives: Collection[str] = ()) -> Result:
        """Return the result for the search, the same live and on resume."""
        return read_report(self._reported(), METRIC, MODE, objectives)

    def counted(self, objectives: Collection[str]) -> EvaluationRecord:
        """Return the record as the search counts it. If an objective was not measured, it has no fitness, and a violation for each missing
        one."""
        if not objectives or self.fitness is None or self.result(objectives).fitness is not None:
            return self
        measured = self.objectives or {}
        missing = {f"search.objectives.{name} (not measured)": 1.0 for name in objectives if measured.get(name) is None}
        return replace(self, fitness=None, violations={**self.violations, **missing})

    def _reported(self) -> dict[str, Any]:
        found = {"status": str(self.status), "violation": self.violation, "transient": self.transient, "n_windows": self.n_windows}
        fitness = math.nan if self.fitness is None else self.fitness  # Tune requires the key
        return {**found, **(self.objectives or {}), METRIC: fitness, "stderr": self.repeat_stderr}
