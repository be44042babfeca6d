"""Turn a measurement into constraint violations and one fitness.

Every term maps its metric x to (0, 1), falls strictly with x also past the target, and is 1/2 at the target t:
    worse when greater (latency, WER, failures):  t / (t + x)
    better when greater (capacity):               x / (t + x)
    best at a target (utilisation):               1 / (1 + ((x - t) / t)^2)
so two candidates that measured differently never tie by saturation. Fitness is the weighted mean of the terms (weights divided by their
sum), in (0, 1), higher is better. A term whose metric was not measured makes the fitness absent, unless its weight is 0.

The catalogue of the space says which metrics, terms and constraints there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Better, Limit, Metric, Shape
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.config.search_settings import target_of
from tune_gpu.metrics import FAILED_PCT, N_FAILED, N_REQUESTS, OOM_EVENTS, PAIR, VOICE_TURN

_STABILITY_SPREAD_TARGET = 1.0
_LEAST_LIMIT = 1e-9
"""A violation is divided by its limit, and a limit may be 0."""


@dataclass(frozen=True)
class Evaluation:
    """A measurement as the search sees it."""

    fitness: float | None
    """None if a constraint is violated or a term was not measured."""
    terms: dict[str, float]
    violations: dict[str, float]
    """Constraint -> by how much it is exceeded, as a share of its limit; empty for a feasible candidate."""


def falling(x: float, target: float) -> float:
    """Return t / (t + x): 1 at 0, 1/2 at the target, strictly falling."""
    return target / (target + max(0.0, x))


def rising(x: float, target: float) -> float:
    """Return x / (t + x): 0 at 0, 1/2 at the target, strictly rising."""
    return max(0.0, x) / (target + max(0.0, x))


def near(x: float, target: float) -> float:
    """Return 1 / (1 + ((x - t) / t)^2): 1 at the target, strictly falling on both sides."""
    return 1.0 / (1.0 + ((x - target) / target) ** 2)


def evaluate(metrics: Mapping[str, Any], objective: ObjectiveSettings, catalogue: Catalogue = PAIR) -> Evaluation:
    """Score the metrics of one evaluation or of one of its windows (names as in the artifacts)."""
    violations = _violations(metrics, objective, catalogue)
    found = {name: _term(metric, metrics, objective, catalogue) for name, metric in catalogue.terms().items()}
    terms = {name: value for name, value in found.items() if value is not None}
    weights = {name: weight for name, weight in objective.weights.items() if weight > 0}
    if violations or not weights.keys() <= terms.keys():
        return Evaluation(None, terms, violations)
    total = sum(weights.values())
    return Evaluation(sum(weight * terms[name] for name, weight in weights.items()) / total, terms, violations)


def metric_at(metrics: Mapping[str, Any], path: str) -> float | None:
    """Return a metric by its name in the artifacts, dotted into a distribution (`stt_latency_ms.p95`), or None if it is missing or no number.

    A name may have a dot itself (`llm.ttft_ms.p95`).
    """
    value = _value_at(metrics, path)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _value_at(values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        return None
    if path in values:
        return values[path]
    cuts = [at for at, letter in enumerate(path) if letter == "."]
    return next((found for at in cuts if path[:at] in values and (found := _value_at(values[path[:at]], path[at + 1 :])) is not None), None)


_SHAPES: Mapping[Shape, Callable[[float, float], float]] = {Shape.FALLING: falling, Shape.RISING: rising, Shape.NEAR: near}


def _term(metric: Metric, metrics: Mapping[str, Any], objective: ObjectiveSettings, catalogue: Catalogue) -> float | None:
    """Return the term of the fitness that rests on this metric, or None if the metric was not measured."""
    if metric.term is None or metric.term.shape is Shape.STEADY:
        return _stability(metrics, catalogue.of(VOICE_TURN))
    x, target = metric_at(metrics, path_of(metric, objective)), target_of(objective, metric)
    return None if x is None or target is None else _SHAPES[metric.term.shape](x, target)


def path_of(metric: Metric, objective: ObjectiveSettings) -> str:
    """Return the path of the number by which a metric is judged: of many samples that at `objective.latency_percentile`."""
    return metric.at(f"p{objective.latency_percentile}") if metric.many else metric.name


def _stability(metrics: Mapping[str, Any], turn: Metric) -> float | None:
    """Return how little the answer time of a turn spreads (p95 / p50 - 1), failures and OOM events counted against it."""
    p50, p95 = (metric_at(metrics, turn.at(statistic)) for statistic in ("p50", "p95"))
    if p50 is None or p95 is None or p50 <= 0:
        return None
    spread = p95 / p50 - 1.0
    failed = (metrics.get(N_FAILED.name) or 0) / max(1, metrics.get(N_REQUESTS.name) or 1)
    return falling(spread, _STABILITY_SPREAD_TARGET) * (1.0 - failed) / (1.0 + (metrics.get(OOM_EVENTS.name) or 0))


def _violations(metrics: Mapping[str, Any], objective: ObjectiveSettings, catalogue: Catalogue) -> dict[str, float]:
    """Return the constraints that are violated: the settings of their own, of all services the worst, and `objective.limits` by their paths."""
    found: dict[str, float] = {}
    for metric in catalogue.every():
        if metric.limit is not None and (excess := _excess(metric, metric.limit, metrics, objective)) > 0:
            found[metric.limit.setting] = max(excess, found.get(metric.limit.setting, 0.0))
    known = catalogue.limits()
    for path, bound in objective.limits.items():
        metric = known[path]
        value = _limited(metric, metrics, path_of(metric, objective) if path == metric.name else path)
        if value is not None and (excess := _beyond(metric, value, bound)) > 0:
            found[path] = excess
    return found


def _excess(metric: Metric, limit: Limit, metrics: Mapping[str, Any], objective: ObjectiveSettings) -> float:
    """Return by how much the metric is above its limit, as a share of the limit; 0 without a limit or a measurement."""
    allowed: float | None = getattr(objective, limit.setting)
    value = _limited(metric, metrics, metric.name)
    return 0.0 if allowed is None or value is None else max(0.0, (value - allowed) / max(allowed, limit.least))


def _beyond(metric: Metric, value: float, bound: float) -> float:
    """Return by how much a value is on the wrong side of its bound, as a share of the bound; at most 0 on the right side."""
    distance = bound - value if metric.better is Better.HIGHER else value - bound
    least = metric.limit.least if metric.limit else _LEAST_LIMIT
    return distance / max(abs(bound), least)


def _limited(metric: Metric, metrics: Mapping[str, Any], path: str) -> float | None:
    return _failed_pct(metrics) if metric.is_entry(FAILED_PCT) else metric_at(metrics, path)


def _failed_pct(metrics: Mapping[str, Any]) -> float | None:
    requests = metrics.get(N_REQUESTS.name) or 0
    return 100.0 * (metrics.get(N_FAILED.name) or 0) / requests if requests else None
