"""What an entry of the catalogue of metrics (`tune_gpu/metrics.py`) consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PERCENTILES = (50, 90, 95, 99)
STATISTICS = (*(f"p{percentile}" for percentile in PERCENTILES), "mean")
"""What is kept of a metric with many samples."""


def least_samples(percentile: int) -> int:
    """Return how many samples carry a percentile: with fewer, none is expected beyond it, and it says no more than the largest one."""
    return math.ceil(100 / (100 - percentile))


def carries(n: int, statistic: str) -> bool:
    """Return whether n samples carry a statistic: `p95` takes 20, the mean 1."""
    return not statistic.startswith("p") or n >= least_samples(int(statistic.removeprefix("p")))


def largest_carried(n: int) -> str | None:
    """Return the largest of the kept percentiles that n samples carry, or None."""
    return next((f"p{percentile}" for percentile in reversed(PERCENTILES) if carries(n, f"p{percentile}")), None)


def least_trials(share: float, alpha: float) -> int:
    """Return how many trials without an event rule out that more than this share of them has one (the rule of three: Hanley and Lippman-Hand
    1983). A share outside (0, 1) takes none."""
    return math.ceil(math.log(alpha) / math.log1p(-share)) if 0.0 < share < 1.0 else 0


def shown_percentiles(n: int | None) -> tuple[str, ...]:
    """Return the median and the largest percentile up to p95 that n samples carry, as far as they carry them; both if n is not known."""
    if n is None:
        return "p50", "p95"
    highest = next((at for at in ("p95", "p90") if carries(n, at)), None)
    return tuple(at for at in ("p50", highest) if at is not None and carries(n, at))


def statistic_text(number: str, n: int | None, statistic: str) -> str:
    """Return a number with the count of its samples, or that they are too few for it."""
    if n is None:
        return number
    return f"{number} (n={n})" if carries(n, statistic) else f"n={n}: too few for {statistic}"


GAUGE_AT = "p95"
"""The statistic that a gauge shows."""


class Protocol(StrEnum):
    """What a metric belongs to: the protocol of a service, the device, or the whole turn across its services."""

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
    """What a card may not report."""

    UTILIZATION = "its utilisation"
    POWER = "its power"
    MEMORY = "its memory in use"
    PROCESS_MEMORY = "the memory of a process"


class Statistic(StrEnum):
    """How a comparison computes a metric from the paired turns or rounds."""

    PERCENTILE = "percentile"
    """Of the turns' values; its effect is a ratio, in per cent."""
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
    """A constraint: the setting under `objective`, and the least that a violation is divided by (the limit itself may be 0)."""

    setting: str
    least: float


@dataclass(frozen=True)
class Needs:
    """Conditions without which a metric is not measured."""

    setting: str = ""
    """A setting that must be above 0."""
    card: bool = False
    """Measured on cards only."""
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
    """`same` also holds where only a loss is ruled out."""


@dataclass(frozen=True)
class Compared:
    """How two configurations are compared by a metric."""

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
    """Compared at the median besides `objective.latency_percentile`."""
    phrases: Phrases | None = None


@dataclass(frozen=True)
class Reported:
    """How the report shows a metric."""

    at: tuple[str, ...] = ("p50", "p95")
    digits: int = 0
    plotted: bool = False
    """Drawn in the figure of latencies."""
    each: bool = False
    """Also shown for every evaluation; of a metric with many samples the last statistic of `at`."""


@dataclass(frozen=True)
class Column:
    """A column of the live table."""

    title: str
    digits: int = 0
    narrow: bool = False
    """Kept where the terminal is narrow."""


@dataclass(frozen=True)
class Gauge:
    """A gauge on Ray's metrics port, and its place in the Grafana dashboard."""

    name: str = ""
    """After `tune_gpu_`, if that is not computed from the metric's name."""
    description: str = ""
    """Of the panel."""
    legend: str = ""
    total: bool = False
    """The panel shows the sum over all candidates."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """Its key in the metrics of an evaluation."""
    protocols: tuple[Protocol, ...]
    label: str
    help: str
    """A sentence for Prometheus; for a metric with many samples without the statistic and the unit."""
    unit: str = ""
    """`ms`, `%`, `MiB`, `J`; empty for a share and for a count, whose label says what is counted."""
    better: Better = Better.LOWER
    many: bool = False
    """It has many samples in an evaluation, of which `STATISTICS` are kept."""
    of_turn: str = ""
    """The attribute of a voice turn that holds its sample, dotted."""
    in_service: str = ""
    """Its name after `<service>.`, if that is not `name`."""
    parts: Mapping[str, str] | None = None
    """Service of the default pair -> key, for a metric that has a value for each service."""
    needs: Needs = Needs()
    target: str = ""
    """The setting under `objective` that holds its target."""
    term: Term | None = None
    limit: Limit | None = None
    counts_errors: bool = False
    """It counts recognition errors, in words or characters (`ERROR_UNIT`)."""
    of_line: bool = False
    """It stands beside the metrics of an evaluation, not among them."""
    at_least: str = ""
    """The metric that says whether the value is a lower bound only."""
    objective: bool = True
    """It can be one of `search.objectives`."""
    zero: str = ""
    """What stands beside a 0, which would be a riddle."""
    compared: Compared | None = Compared()
    reported: Reported | None = Reported()
    column: Column | None = None
    gauge: Gauge | None = Gauge()

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
        """Its name in a comparison, without a percentile."""
        return (self.compared and self.compared.name) or self.name

    @property
    def turn_key(self) -> str:
        """Return the key of its value in a turn of a comparison."""
        return (self.compared and self.compared.turn_key) or self.name

    @property
    def gauge_name(self) -> str:
        """Return the name of its gauge."""
        if self.gauge is not None and self.gauge.name:
            return f"tune_gpu_{self.gauge.name}"
        stem, unit = self.name.removesuffix(f"_{self.unit}"), f"_{self.unit}" if self.name.endswith(f"_{self.unit}") else ""
        return f"tune_gpu_{stem}_{GAUGE_AT}{unit}" if self.many else f"tune_gpu_{self.name}"

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
        """Return the paths of its numbers in the metrics of an evaluation of the default pair."""
        if self.parts is not None:
            return tuple(self.at(part) for part in self.parts.values())
        return tuple(self.at(statistic) for statistic in STATISTICS) if self.many else (self.name,)
