"""Say where a configuration misses the targets of the objective, although the fitness may prefer it: weights can outvote a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Better, Metric
from tune_gpu.common.wording import counted
from tune_gpu.config.search_settings import target_of
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import PAIR

_FAR = 2.0
"""A miss by this factor is far."""


@dataclass(frozen=True)
class MissedTarget:
    """A metric beyond its target."""

    metric: Metric
    value: float
    target: float
    theirs: float | None
    """What runs today has; None if it is not known."""
    percentile: str = ""
    n: int | None = None
    """Samples behind a percentile."""

    @property
    def text(self) -> str:
        """Return it as a clause: `its first token at p95 is 6758 ms, far outside the target of 500 ms (n=2; what runs: 425 ms)`."""
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        beside = [] if self.n is None else [f"n={counted(self.n, 'sample')}"]
        beside += [] if self.theirs is None else [f"what runs: {_figure(self.theirs)}{unit}"]
        where = "far outside" if _factor(self.metric, self.value, self.target) > _FAR else "outside"
        more = f" ({'; '.join(beside)})" if beside else ""
        return f"its {self.metric.label}{self.percentile and f' at {self.percentile}'} is {_figure(self.value)}{unit}, {where} the target of {self.target:g}{unit}{more}"


def missed_targets(
    ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, objective: Mapping[str, Any], catalogue: Catalogue = PAIR
) -> tuple[MissedTarget, ...]:
    """Return the targets that a configuration misses where what runs does not, or misses by far and by more than what runs.

    A default target that nobody has set counts only for a metric that has a weight.

    Args:
        ours: metrics of an evaluation of the configuration.
        theirs: those of what runs; None if they are not known.
        objective: the settings under `objective`.
        catalogue: the metrics of the space.
    """
    found = []
    for metric in catalogue.every():
        target = target_of(objective, metric)
        if not target or metric.better is Better.NEITHER or not _chosen(metric, objective):
            continue
        percentile = f"p{objective.get('latency_percentile', 95)}" if metric.many else ""
        path = metric.at(percentile) if percentile else metric.name
        value, other = metric_at(ours, path), metric_at(theirs, path) if theirs else None
        if value is None:
            continue
        factor, today = _factor(metric, value, target), 1.0 if other is None else _factor(metric, other, target)
        if factor > max(1.0, today) and (factor > _FAR or today <= 1.0):
            n = metric_at(ours, f"{metric.name}.n") if percentile else None
            found.append(MissedTarget(metric, value, target, other, percentile, None if n is None else int(n)))
    return tuple(found)


def _chosen(metric: Metric, objective: Mapping[str, Any]) -> bool:
    """Return whether the user has set the target of a metric, or gave the metric a weight."""
    weight = (objective.get("weights") or {}).get(metric.term.name, 0.0) if metric.term else 0.0
    return metric.default_target is None or weight > 0.0 or metric.name in (objective.get("targets") or {})


def _factor(metric: Metric, value: float, target: float) -> float:
    """Return by what factor a target is missed; at most 1 where it is met."""
    if metric.better is Better.LOWER:
        return value / target
    return target / value if value > 0.0 else float("inf")


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
