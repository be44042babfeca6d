"""Settings of the search: what varies, how it is searched, and what a measurement is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.metric import PERCENTILES, Metric
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.rules import Entries, OneOf, bounded, one_of, rule


@dataclass
class ParameterSpec:
    """One knob: either `values`, or a range (`low`, `high`). `step` or `integer` give its steps; `log` samples it in the logarithm."""

    target: str
    """The setting of its value: a dotted path into `Services`, for example `vllm.gpu_memory_utilization`."""
    values: list[Any] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = bounded(None, above=0)
    log: bool = False
    integer: bool = False
    kind: str = one_of("ordinal", "ordinal", "categorical")
    """`ordinal`: the order of `values` has a meaning (0.45 lies next to 0.50); `categorical`: it has none."""
    when: dict[str, list[Any]] = field(default_factory=dict)
    """The knob exists only if each named parameter has one of these values."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message."""
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
    """`rzero`: the tournament, with proposals that a surrogate has screened. `classic`: R-Zero as it was."""
    asynchronous: bool | None = None
    """Propose each candidate from all results so far, instead of a generation at once (`rzero` only). null: true, unless candidates are
    ordered by the engine that they share."""
    initial: int = bounded(2, least=1, most=10_000)
    tournament_size: int = bounded(4, least=2, most=10_000)
    survivors: int = bounded(2, least=1)
    elites: int = bounded(1, least=0, most=1)
    fresh: int = bounded(1, least=1)
    generations: int = bounded(4, least=1)
    recheck: int = bounded(0, least=0)
    """How often, at most, a configuration that would win by a single evaluation is measured again at the end."""
    anchors: int = bounded(1, least=0)
    """So many times the baseline is deployed again after the search, to show how much one configuration differs between its deployments. They are
    kept in `anchors.jsonl` and choose no winner. With three or more a drift during the run is estimated, too."""
    objectives: dict[str, str] = field(default_factory=dict, metadata=rule(Entries(OneOf(("max", "min")), kind="metric")))
    """Pareto mode: metric -> `max` or `min`. Survivors are chosen by fronts and crowding, `rzero` proposes for every part of the front, and
    the summary holds the front. The winner is still the configuration with the best fitness."""
    racing: bool = False
    """Stop a candidate between windows once as many others as survive are shown to be better. It saves time only with `workload.windows` of
    at least 3."""
    window_budget: int | None = bounded(None, least=1)
    """With `racing`: once the search has measured so many windows, no candidate gets more than two."""
    seed: int = bounded(0, least=0)

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message."""
        if self.survivors > self.tournament_size:
            yield f"{at}survivors={self.survivors}: more than {at}tournament_size={self.tournament_size}. Set at most as many."
        if self.elites + self.fresh >= self.tournament_size:
            yield (
                f"{at}elites + {at}fresh = {self.elites + self.fresh}: no offspring are left of {at}tournament_size={self.tournament_size}. "
                "Set less in all."
            )


@dataclass
class ObjectiveSettings:
    """How a measurement becomes one number; see `evaluation/objective.py` for the formulas."""

    weights: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="term")))
    """Term of the fitness -> weight. They are divided by their sum."""
    stt_latency_target_ms: float = bounded(500.0, above=0)
    llm_latency_target_ms: float = bounded(1000.0, above=0)
    ttft_target_ms: float = bounded(500.0, above=0)
    latency_percentile: int = one_of(95, *PERCENTILES)
    capacity_target_sessions: float = bounded(4.0, above=0)
    utilization_target_pct: float = bounded(70.0, above=0)
    wer_target: float = bounded(0.10, above=0)
    targets: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(above=0), kind="metric")))
    """Metric -> its target, for a service that the settings above do not fit. They hold for every service of their protocol that is not named here."""
    max_wer: float | None = bounded(None, least=0)
    max_failed_requests_pct: float | None = bounded(5.0, least=0)
    """Constraint: a candidate above it is infeasible, and its violation is the difference."""
    limits: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="metric")))
    """Further constraints: a metric or one of its statistics -> the most that it may be, or the least for one that is better when greater. A metric
    with many samples is limited at `latency_percentile` if no statistic is named."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message. No weights at all: a run refuses that."""
        if self.weights and not any(self.weights.values()):
            yield f"{at}weights: all are 0. Set at least one above 0."


def target_of(objective: ObjectiveSettings | Mapping[str, Any], metric: Metric) -> float | None:
    """Return the target of a metric: what `objective.targets` names, else the setting for its protocol, else the metric's own default.

    Args:
        objective: the settings, also as an artifact holds them.
        metric: of the space's catalogue.
    """
    settings = objective if isinstance(objective, Mapping) else vars(objective)
    named = settings.get("targets")
    given = (named.get(metric.name) if isinstance(named, Mapping) else None, settings.get(metric.target), metric.default_target)
    return next((float(each) for each in given if isinstance(each, (int, float)) and not isinstance(each, bool)), None)
