"""The types of the entries in the catalogue of metrics (`tune_gpu/metrics.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PERCENTILES = (50, 90, 95, 99)
STATISTICS = (*(f"p{percentile}" for percentile in PERCENTILES), "mean")
"""Statistics that are kept of a metric with many samples."""


def least_samples(percentile: int) -> int:
    """Return how many samples a percentile needs. With fewer, no sample is expected beyond it, so it shows no more than the maximum."""
    return math.ceil(100 / (100 - percentile))


def carries(n: int, statistic: str) -> bool:
    """Return True if n samples are enough for a statistic: `p95` needs 20, the mean 1."""
    return not statistic.startswith("p") or n >= least_samples(int(statistic.removeprefix("p")))


def largest_carried(n: int) -> str | None:
    """Return the largest kept percentile for which n samples are enough, or None."""
    return next((f"p{percentile}" for percentile in reversed(PERCENTILES) if carries(n, f"p{percentile}")), None)


def split_path(path: str) -> tuple[str, str]:
    """Split a path into the name and the statistic (`llm.ttft_ms.p95`: `llm.ttft_ms` and `p95`), which is "" if the path has none."""
    name, _, last = path.rpartition(".")
    return (name, last) if name and last in STATISTICS else (path, "")


def least_trials(share: float, alpha: float) -> int:
    """Return how many trials without an event are needed to rule out that more than this share of them has one (the rule of three: Hanley
    and Lippman-Hand 1983). Return 0 for a share outside (0, 1)."""
    return math.ceil(math.log(alpha) / math.log1p(-share)) if 0.0 < share < 1.0 else 0


def shown_percentiles(n: int | None) -> tuple[str, ...]:
    """Return the median and the largest percentile up to p95 for which n samples are enough, as far as they are. Return both if n is
    unknown."""
    if n is None:
        return "p50", "p95"
    highest = next((at for at in ("p95", "p90") if carries(n, at)), None)
    return tuple(at for at in ("p50", highest) if at is not None and carries(n, at))


def statistic_text(number: str, n: int | None, statistic: str) -> str:
    """Return a number with its sample count, or a note that there are too few samples."""
    if n is None:
        return number
    return f"{number} (n={n})" if carries(n, statistic) else f"n={n}: too few for {statistic}"


GAUGE_AT = "p95"
"""The statistic that a gauge shows."""


class Protocol(StrEnum):
    """What a metric is measured on: the protocol of a service, the device, or the whole turn across its services."""

    TRANSCRIPTION = "transcription"
    CHAT = "chat"
    COMPLETION = "completion"
    SPEECH = "speech"
    EMBEDDING = "embedding"
    DEVICE = "device"
    TURN = "turn"


class Better(StrEnum):
    """The direction in which a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class Shape(StrEnum):
    """How a metric becomes a term of the fitness; `evaluation/objective.py` has the formulas."""

    FALLING = "falling"
    RISING = "rising"
    NEAR = "near"
    STEADY = "steady"


class Reading(StrEnum):
    """Readings that some cards do not report."""

    UTILIZATION = "its utilisation"
    POWER = "its power"
    MEMORY = "its memory in use"
    PROCESS_MEMORY = "the memory of a process"


class Statistic(StrEnum):
    """How a comparison computes a metric from the paired turns or rounds."""

    PERCENTILE = "percentile"
    """A percentile of the turns' values. The effect is a ratio, in per cent."""
    ERRORS_PER_WORD = "errors_per_word"
    SHARE_OF_TURNS = "share_of_turns"
    MEAN_OF_ROUNDS = "mean_of_rounds"


@dataclass(frozen=True)
class Term:
    """A term of the fitness: its name, its shape, and the setting under `objective` that holds its target."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Limit:
    """A constraint: the setting under `objective`, and the smallest divisor of a violation (the limit itself may be 0)."""

    setting: str
    least: float


@dataclass(frozen=True)
class Needs:
    """Conditions without which a metric is not measured."""

    setting: str = ""
    """A setting that must be above 0."""
    card: bool = False
    """Measured on cards only."""
    sessions: bool = False
    """Measured with conversations only (`traffic.kind: sessions`)."""
    reading: Reading | None = None
    """What the card must report."""


@dataclass(frozen=True)
class Phrases:
    """Words of the verdict's sentence. `{amount}` is the difference, `{count}` the same as a count with `{s}` for its plural, `{unit}`
    word or character."""

    better: str
    worse: str
    same: str = ""
    undecided: str = ""
    scale: float = 1.0
    not_worse_is_same: bool = False
    """Use `same` also if only a loss is ruled out."""


@dataclass(frozen=True)
class Compared:
    """How a comparison of two configurations uses a metric."""

    statistic: Statistic = Statistic.PERCENTILE
    name: str = ""
    """Its name in a comparison, if that is not the metric's own."""
    turn_key: str = ""
    """The key of its value in a turn of `comparison.jsonl`, if that is not the metric's name."""
    unit: str = "%"
    digits: int = 1
    tolerance: float = 10.0
    """A difference up to this does not matter: per cent for a percentile, else the metric's own unit. The default of `confirm.tolerances`."""
    median_too: bool = False
    """The metric is compared at the median, too, not only at `objective.latency_percentile`."""
    phrases: Phrases | None = None


@dataclass(frozen=True)
class Reported:
    """How the report shows a metric."""

    at: tuple[str, ...] = ("p50", "p95")
    digits: int = 0
    plotted: bool = False
    """The metric appears in the figure of latencies."""
    each: bool = False
    """The metric is also shown for every evaluation. If it has many samples, the last statistic of `at` is shown."""


@dataclass(frozen=True)
class Column:
    """A column of the live table."""

    title: str
    """In a space that names its services, the service precedes the title if several services have the metric."""
    digits: int = 0
    narrow: bool = False
    """The column is kept on a narrow terminal."""
    titled_by_service: bool = False
    """In a space that names its services, the title is the name of the service."""


@dataclass(frozen=True)
class Gauge:
    """A gauge on Ray's metrics port, and its place in the Grafana dashboard."""

    name: str = ""
    """Name after `tune_gpu_`; "" to derive it from the metric's name."""
    description: str = ""
    """Description of the panel."""
    legend: str = ""
    total: bool = False
    """The panel shows the sum over all candidates."""


@dataclass(frozen=True)
class Elsewhere:
    """Differences in a space that names its services. An empty field means no difference."""

    name: str = ""
    """Name there, after `<service>.` for a metric of a service."""
    label: str = ""
    help: str = ""
    term: Term | None = None
    """Term of the fitness there, named after `<service>.` for a metric of a service."""
    target: float | None = None
    """Default target there, if no setting under `objective` has one."""
    needs: Needs | None = None
    """Conditions without which the metric is not measured there; None for the same conditions."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """Its key in the metrics of an evaluation."""
    protocols: tuple[Protocol, ...]
    label: str
    help: str
    """Help sentence for Prometheus. For a metric with many samples it leaves out the statistic and the unit."""
    unit: str = ""
    """`ms`, `%`, `MiB`, `J`; empty for a share and for a count, whose label says what is counted."""
    better: Better = Better.LOWER
    many: bool = False
    """The metric has many samples in an evaluation, and `STATISTICS` of them are kept."""
    of_turn: str = ""
    """Dotted attribute of a voice turn that holds the sample."""
    elsewhere: Elsewhere = Elsewhere()
    """Differences in a space that names its services."""
    parts: Mapping[str, str] | None = None
    """Service -> key, for a metric that has a value for each service."""
    needs: Needs = Needs()
    target: str = ""
    """The setting under `objective` that holds its target."""
    term: Term | None = None
    limit: Limit | None = None
    counts_errors: bool = False
    """The metric counts recognition errors, in words or characters (`ERROR_UNIT`)."""
    of_line: bool = False
    """The metric is a field of an evaluation's record, not an entry of its `metrics`."""
    at_least: str = ""
    """The metric that says whether the value is a lower bound only."""
    objective: bool = True
    """The metric can be one of `search.objectives`."""
    zero: str = ""
    """Explanation that is shown beside a value of 0."""
    compared: Compared | None = Compared()
    reported: Reported | None = Reported()
    column: Column | None = None
    gauge: Gauge | None = Gauge()
    service: str = ""
    """The service of the metric, in a space that names its services; "" for the metrics of turns and of the device."""
    declared: str = ""
    """The entry of the catalogue from which the metric was bound; "" for an entry itself."""
    default_target: float | None = None
    """Default target, if neither `objective.targets` nor a setting has one."""

    def is_entry(self, entry: Metric) -> bool:
        """Return whether the metric is this entry of the catalogue, or was bound from it."""
        return (self.declared or self.name) == entry.name

    @property
    def short(self) -> str:
        """Return the metric's name without the service."""
        return self.name.removeprefix(f"{self.service}.") if self.service else self.name

    def at(self, statistic: str) -> str:
        """Return the path of a statistic (`p95`) or a part in the metrics of an evaluation."""
        return f"{self.name}.{statistic}"

    @property
    def mode(self) -> str:
        """Return the direction as an objective of Tune."""
        return "max" if self.better is Better.HIGHER else "min"

    @property
    def heading(self) -> str:
        """Return the label with its unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def compared_name(self) -> str:
        """Return the metric's name in a comparison, without a percentile."""
        return (self.compared and self.compared.name) or self.name

    @property
    def turn_key(self) -> str:
        """Return the key of its value in a turn of a comparison."""
        return (self.compared and self.compared.turn_key) or self.name

    @property
    def gauge_name(self) -> str:
        """Return the name of the metric's gauge. The service is not part of it, but a label of the gauge."""
        if self.gauge is not None and self.gauge.name:
            return f"tune_gpu_{self.gauge.name}"
        stem, unit = self.short.removesuffix(f"_{self.unit}"), f"_{self.unit}" if self.short.endswith(f"_{self.unit}") else ""
        return f"tune_gpu_{stem}_{GAUGE_AT}{unit}" if self.many else f"tune_gpu_{self.short}"

    @property
    def gauge_help(self) -> str:
        """Return the help text of its gauge."""
        unit = {"ms": ", milliseconds"}.get(self.unit, f", {self.unit}" if self.unit else "")
        return f"{self.help}, {GAUGE_AT.removeprefix('p')}th percentile{unit}." if self.many else self.help

    @property
    def line_path(self) -> str:
        """Return the path of its gauge's number in a candidate's line."""
        path = self.at(GAUGE_AT) if self.many else self.name
        return path if self.of_line else f"metrics.{path}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of the metric's numbers in the metrics of an evaluation."""
        if self.parts is not None:
            return tuple(self.at(part) for part in self.parts.values())
        return tuple(self.at(statistic) for statistic in STATISTICS) if self.many else (self.name,)
