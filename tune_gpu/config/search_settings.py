"""Settings of the search: its parameters, its algorithm and its objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.metric import PERCENTILES, Metric
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.rules import Entries, OneOf, bounded, one_of, rule


@dataclass
class ParameterSpec:
    """One knob: either `values`, or a range (`low`, `high`). `step` or `integer` sets the steps of a range; `log` samples it
    logarithmically."""

    target: str
    """The setting that the knob changes: a dotted path into `Services`, for example `vllm.gpu_memory_utilization`."""
    values: list[Any] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = bounded(None, above=0)
    log: bool = False
    integer: bool = False
    kind: str = one_of("ordinal", "ordinal", "categorical")
    """`ordinal`: `values` are ordered (0.45 lies next to 0.50); `categorical`: they have no order."""
    when: dict[str, list[Any]] = field(default_factory=dict)
    """The knob exists only if each named parameter has one of these values."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        knob, low, high = at.removesuffix("."), self.low, self.high
        if self.values is not None:
            if any(given is not None for given in (low, high, self.step)):
                yield f"{knob}: has `values` and a range (`low`, `high`, `step`). Give one of them."
            if not self.values:
                yield f"{at}values: is empty. Give at least one value."
        elif low is None or high is None:
            yield f"{knob}: has no values. Give `values`, or both `low` and `high`."
        elif low > high or (self.log and low <= 0):
            yield f"{knob}: low={low}, high={high}: not a range. Set low <= high{', and low > 0 with log' if self.log else ''}."
        elif self.integer and self.step is not None and self.step != int(self.step):
            yield f"{at}step={self.step}: not a whole number, but integer is set. Set a whole number."


@dataclass
class SearchSettings:
    """R-Zero. The sizes are the classic ones: 2 + 4 + 4 + 4 evaluations in 4 generations."""

    algorithm: str = one_of("rzero", "rzero", "classic")
    """`rzero`: the tournament, with proposals screened by a surrogate. `classic`: the original R-Zero."""
    asynchronous: bool | None = None
    """Propose each candidate from all results so far, instead of a whole generation at once (`rzero` only). null: true, unless candidates
    are ordered by the engine that they share."""
    initial: int = bounded(2, least=1, most=10_000)
    tournament_size: int = bounded(4, least=2, most=10_000)
    survivors: int = bounded(2, least=1)
    elites: int = bounded(1, least=0, most=1)
    fresh: int = bounded(1, least=1)
    generations: int = bounded(4, least=1)
    recheck: int = bounded(0, least=0)
    """Maximum number of measurements at the end that repeat a configuration which would win by a single evaluation."""
    anchors: int = bounded(1, least=0)
    """Number of further deployments of the baseline after the search. They show how much one configuration differs between its deployments,
    are kept in `anchors.jsonl`, and do not decide the winner. With three or more, drift during the run is estimated, too."""
    objectives: dict[str, str] = field(default_factory=dict, metadata=rule(Entries(OneOf(("max", "min")), kind="metric")))
    """Pareto mode: metric -> `max` or `min`. Survivors are chosen by fronts and crowding, `rzero` proposes for every part of the front, and
    the summary holds the front. The winner is still the configuration with the best fitness."""
    racing: bool = False
    """Stop a candidate between windows once enough others are shown to be better that it cannot survive. It saves time only with
    `workload.windows` of at least 3."""
    window_budget: int | None = bounded(None, least=1)
    """With `racing`: once the search has measured this many windows, no candidate gets more than two."""
    seed: int = bounded(0, least=0)

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        if self.survivors > self.tournament_size:
            yield f"{at}survivors={self.survivors}: more than {at}tournament_size={self.tournament_size}. Set at most {self.tournament_size}."
        if self.elites + self.fresh >= self.tournament_size:
            yield (
                f"{at}elites + {at}fresh = {self.elites + self.fresh}: no offspring are left of {at}tournament_size={self.tournament_size}. "
                "Set a smaller sum."
            )


@dataclass
class ObjectiveSettings:
    """How a measurement becomes one number; see `evaluation/objective.py` for the formulas."""

    weights: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="term")))
    """Term of the fitness -> weight. The weights are divided by their sum."""
    stt_latency_target_ms: float = bounded(500.0, above=0)
    llm_latency_target_ms: float = bounded(1000.0, above=0)
    ttft_target_ms: float = bounded(500.0, above=0)
    latency_percentile: int = one_of(95, *PERCENTILES)
    capacity_target_sessions: float = bounded(4.0, above=0)
    utilization_target_pct: float = bounded(70.0, above=0)
    wer_target: float = bounded(0.10, above=0)
    targets: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(above=0), kind="metric")))
    """Metric -> target, for services that need other targets than the settings above. Those hold for every service of their protocol that
    is not named here."""
    max_wer: float | None = bounded(None, least=0)
    max_failed_requests_pct: float | None = bounded(5.0, least=0)
    """Constraint: a candidate above it is infeasible; its violation is the difference."""
    limits: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="metric")))
    """Further constraints: metric or statistic of a metric -> its largest allowed value, or its smallest if higher is better. A metric with
    many samples is limited at `latency_percentile` if no statistic is named."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings. Missing weights are refused when a run starts, not here."""
        if self.weights and not any(self.weights.values()):
            yield f"{at}weights: all are 0. Set at least one above 0."


def target_of(objective: ObjectiveSettings | Mapping[str, Any], metric: Metric) -> float | None:
    """Return the target of a metric: its entry in `objective.targets`, else the setting for its protocol, else the metric's own default.

    Args:
        objective: the settings, or the same as read from an artifact.
        metric: a metric of the space's catalogue.
    """
    settings = objective if isinstance(objective, Mapping) else vars(objective)
    named = settings.get("targets")
    given = (named.get(metric.name) if isinstance(named, Mapping) else None, settings.get(metric.target), metric.default_target)
    return next((float(each) for each in given if isinstance(each, (int, float)) and not isinstance(each, bool)), None)
