"""From a measurement to constraint violations and one fitness.

Every term maps its metric x to (0, 1), falls strictly with x also past the target, and is 1/2 at the target t:
    worse when greater (latency, WER, failures):  t / (t + x)
    better when greater (capacity):               x / (t + x)
    best at a target (utilisation):               1 / (1 + ((x - t) / t)^2)
so two candidates that measured differently never tie by saturation. Fitness is the weighted mean of the terms (weights divided by their
sum), in (0, 1), higher is better. A term whose metric was not measured makes the fitness absent, unless its weight is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import check_numbers
from tune_gpu.config.schema import ObjectiveSettings

TERMS = ("stt_latency", "llm_latency", "capacity", "stability", "efficiency", "wer")
_STABILITY_SPREAD_TARGET = 1.0
_DISTRIBUTIONS = ("stt_latency_ms", "llm_latency_ms", "voice_turn_ms", "ttft_ms", "itl_ms", "rtf", "background_latency_ms", "generator_lag_ms")
METRIC_PATHS = (
    *(f"{name}.{at}" for name in _DISTRIBUTIONS for at in ("p50", "p90", "p95", "p99", "mean")),
    "fitness",
    *("wer", "tokens_per_s", "n_requests", "n_transcripts", "n_failed", "gpu_utilization", "memory_used_mib"),
    *("service_memory_mib.vllm", "service_memory_mib.whisper"),
    *("kv_cache_peak_pct", "kv_cache_tokens", "kv_max_concurrency", "energy_per_request_j", "oom_events", "concurrent_capacity"),
    *("capacity_continuous", "interference_ratio.stt", "interference_ratio.llm", *(f"fitness_terms.{name}" for name in TERMS)),
)
"""Where the numbers stand in the metrics of an evaluation (`metric_at`); each can be an objective."""


@dataclass(frozen=True)
class Evaluation:
    """A measurement as the search sees it."""

    fitness: float | None
    """Null where a constraint is violated or a term was not measured."""
    terms: dict[str, float]
    violations: dict[str, float]
    """Constraint -> by how much it is missed, as a share of what is allowed; empty for a feasible candidate."""


def falling(x: float, target: float) -> float:
    """t / (t + x): 1 at 0, 1/2 at the target, strictly falling."""
    return target / (target + max(0.0, x))


def rising(x: float, target: float) -> float:
    """x / (t + x): 0 at 0, 1/2 at the target, strictly rising."""
    return max(0.0, x) / (target + max(0.0, x))


def near(x: float, target: float) -> float:
    """1 / (1 + ((x - t) / t)^2): 1 at the target, strictly falling on both sides."""
    return 1.0 / (1.0 + ((x - target) / target) ** 2)


def check(objective: ObjectiveSettings) -> None:
    """Raises UserError for weights or targets that make no objective."""
    check_numbers(objective, "objective.")
    for name, weight in objective.weights.items():
        if name not in TERMS:
            raise UserError(f"objective.weights.{name}: no such term; allowed: {', '.join(TERMS)}")
        if not weight >= 0:
            raise UserError(f"objective.weights.{name}={weight}: allowed is 0 or more")
    if sum(objective.weights.values()) <= 0:
        raise UserError("objective.weights: at least one must be above 0")
    if objective.latency_percentile not in (50, 90, 95, 99):
        raise UserError(f"objective.latency_percentile={objective.latency_percentile}: allowed are 50, 90, 95, 99")


def evaluate(metrics: Mapping[str, Any], objective: ObjectiveSettings) -> Evaluation:
    """Score the metrics of one evaluation or of one of its windows (names as in the artifacts)."""
    violations = _violations(metrics, objective)
    terms = {name: value for name in TERMS if (value := _term(name, metrics, objective)) is not None}
    weights = {name: weight for name, weight in objective.weights.items() if weight > 0}
    if violations or not weights.keys() <= terms.keys():
        return Evaluation(None, terms, violations)
    total = sum(weights.values())
    return Evaluation(sum(weight * terms[name] for name, weight in weights.items()) / total, terms, violations)


def metric_at(metrics: Mapping[str, Any], path: str) -> float | None:
    """A metric by its name in the artifacts, dotted into a distribution (`stt_latency_ms.p95`); null if it is not measured or no number."""
    value: Any = metrics
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _term(name: str, metrics: Mapping[str, Any], objective: ObjectiveSettings) -> float | None:
    percentile = f"p{objective.latency_percentile}"
    if name == "stt_latency":
        return _apply(falling, _at(metrics, "stt_latency_ms", percentile), objective.stt_latency_target_ms)
    if name == "llm_latency":
        return _apply(falling, _at(metrics, "llm_latency_ms", percentile), objective.llm_latency_target_ms)
    if name == "capacity":
        return _apply(rising, metrics.get("capacity_continuous"), objective.capacity_target_sessions)
    if name == "stability":
        return _stability(metrics)
    if name == "efficiency":
        return _apply(near, metrics.get("gpu_utilization"), objective.utilization_target_pct)
    return _apply(falling, metrics.get("wer"), objective.wer_target)


def _apply(shape: Any, x: float | None, target: float) -> float | None:
    return None if x is None else float(shape(float(x), target))


def _at(metrics: Mapping[str, Any], name: str, percentile: str) -> float | None:
    distribution = metrics.get(name)
    return None if distribution is None else float(distribution[percentile])


def _stability(metrics: Mapping[str, Any]) -> float | None:
    """Return how little the answer time of a voice turn spreads (p95 / p50 - 1), failures and OOM events counted against it."""
    turn = metrics.get("voice_turn_ms")
    if turn is None or turn["p50"] <= 0:
        return None
    spread = turn["p95"] / turn["p50"] - 1.0
    failed = (metrics.get("n_failed") or 0) / max(1, metrics.get("n_requests") or 1)
    return falling(spread, _STABILITY_SPREAD_TARGET) * (1.0 - failed) / (1.0 + (metrics.get("oom_events") or 0))


def _violations(metrics: Mapping[str, Any], objective: ObjectiveSettings) -> dict[str, float]:
    found: dict[str, float] = {}
    wer = metrics.get("wer")
    if objective.max_wer is not None and wer is not None and wer > objective.max_wer:
        found["max_wer"] = (wer - objective.max_wer) / max(objective.max_wer, 0.01)
    requests = metrics.get("n_requests") or 0
    if objective.max_failed_requests_pct is not None and requests:
        failed_pct = 100.0 * (metrics.get("n_failed") or 0) / requests
        if failed_pct > objective.max_failed_requests_pct:
            found["max_failed_requests_pct"] = (failed_pct - objective.max_failed_requests_pct) / max(
                objective.max_failed_requests_pct, 1.0
            )
    return found
