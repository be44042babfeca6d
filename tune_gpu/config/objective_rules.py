"""What the settings under `objective` and `search.objectives` may name: terms and metrics of the space's own catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.config.rules import nearest

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig


def objective_conflicts(config: ExperimentConfig, catalogue: Catalogue) -> Iterator[str]:
    """Yield each rule that is broken, as a message: a name that the space does not have, or a metric that it does not measure."""
    terms, paths, limits = catalogue.terms(), catalogue.objective_paths(), catalogue.limits()
    objective = config.objective
    yield from _unknown("objective.weights", objective.weights, terms, "term")
    yield from _unknown("objective.targets", objective.targets, catalogue.targets(), "metric with a target")
    yield from _unknown("objective.limits", objective.limits, limits, "metric")
    for name, metric in terms.items():
        weight = objective.weights.get(name, 0.0)
        if weight > 0 and (why := _unmeasured(config, metric)):
            yield f"{why}: no {name} is measured, but objective.weights.{name}={weight:g} weighs it. Set objective.weights.{name}=0."
    for path in objective.limits:
        if path in limits and (why := _unmeasured(config, limits[path])):
            yield f"objective.limits.{path}: it is not measured with {why}. Remove it."
    yield from _unknown("search.objectives", config.search.objectives, paths, "metric")
    for path in config.search.objectives:
        if path in paths and (why := _unmeasured(config, paths[path])):
            yield f"search.objectives.{path}: it is not measured with {why}. Remove it."


def _unknown(key: str, given: Iterable[str], known: Iterable[str], kind: str) -> Iterator[str]:
    names = list(known)
    for name in given:
        if name not in names:
            yield f"{key}.{name}: no such {kind}{nearest(name, names)}. Use one of {', '.join(names)}."


def _unmeasured(config: ExperimentConfig, metric: Metric) -> str:
    """Return the setting with which the metric is not measured, or nothing."""
    setting: Callable[[Any], Any] | None = attrgetter(metric.needs.setting) if metric.needs.setting else None
    if setting is not None and not setting(config):
        return f"{metric.needs.setting}=0"
    if metric.needs.sessions and not config.workload.has_sessions:
        return f"traffic.kind={config.workload.kind}"
    return "device=cpu" if metric.needs.card and config.device == "cpu" else ""
