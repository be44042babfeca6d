"""The table of a run on a terminal, as large as the terminal allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tune_gpu.artifacts.deployments import error_of
from tune_gpu.artifacts.lines import engine_started
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Column, Metric, carries, shown_percentiles
from tune_gpu.config.languages import rate_name
from tune_gpu.metrics import ERROR_UNIT, PAIR, WER
from tune_gpu.search.evidence import Evidence
from tune_gpu.search.tournament import Candidate

_AROUND = 8
"""Rows of the title, the header and the borders."""


def samples_of(metrics: Mapping[str, Any], metric: Metric) -> int | None:
    """Return how many samples a metric has in an evaluation. Return None if it was not measured, or if an older program did not count
    them."""
    n = (metrics.get(metric.name) or {}).get("n")
    return None if n is None else int(n)


def spread(metrics: Mapping[str, Any], metric: Metric, digits: int, percentiles: Sequence[str]) -> str:
    """Return these percentiles of a metric with its sample count, `1045 / 2507 (24)`. A percentile without enough samples is a dash."""
    value, n = metrics.get(metric.name), samples_of(metrics, metric)
    if not value:
        return "-"
    shown = (f"{value[at]:.{digits}f}" if n is None or carries(n, at) else "-" for at in percentiles)
    return " / ".join(shown) + ("" if n is None else f" ({n})")


def fitness_of(line: EvaluationRecord, evidence: Evidence) -> str:
    """Return the fitness, with its standard error if known: see `error_of`."""
    error = error_of(line, evidence)
    return f"{line.fitness:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def make_progress_table(
    console: Console, lines: Sequence[EvaluationRecord], now: Sequence[Candidate], names: Sequence[str], evidence: Evidence, catalogue: Catalogue = PAIR,
    *, total: int, elapsed_s: float, left_s: float | None,
) -> Table:  # fmt: skip
    """Return a table of the latest evaluations, with the running ones last, in the widest form that fits the console.

    Args:
        console: the console, whose width and height are used.
        lines: all evaluations so far.
        now: the candidates that are being evaluated.
        names: names of the knobs.
        evidence: the evidence of the lines.
        catalogue: the metrics of the space.
        total: number of planned evaluations.
        elapsed_s: seconds since the run began.
        left_s: estimate of the time left; None if unknown.
    """
    title = Text(_title(lines, now, total, elapsed_s, left_s))
    room = max(1, console.height - _AROUND)
    now = now[-room:]
    measured, few, fitness = _measured(lines, catalogue), _measured(lines, catalogue, narrow=True), _fitness(evidence)
    for columns in (_full(names, measured, fitness), _medium(names, few, fitness), _narrow(names, fitness)):
        table = _filled(columns, lines, now, title, max(1, room - len(now[1:])))
        if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            break
    return table


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[EvaluationRecord], str]
    of_candidate: Callable[[Candidate], str] = lambda _candidate: ""
    """The cell while the evaluation is running."""
    right: bool = False


def _filled(columns: Sequence[_Column], lines: Sequence[EvaluationRecord], now: Sequence[Candidate], title: Text, room: int) -> Table:
    table = Table(title=title, title_justify="left", expand=False, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    if len(lines) > room:
        table.caption = f"{len(lines) - room} earlier evaluations are in the run's folder"
    best = max((line.fitness for line in lines if line.fitness is not None), default=None)
    for line in lines[-room:]:
        style = "bold green" if line.fitness is not None and line.fitness == best else None
        table.add_row(*(Text(column.cell(line)) for column in columns), style=style)
    for candidate in now:
        table.add_row(*(Text(column.of_candidate(candidate)) for column in columns), style="yellow")
    return table


def _title(lines: Sequence[EvaluationRecord], now: Sequence[Candidate], total: int, elapsed_s: float, left_s: float | None) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in Counter(line.outcome for line in lines).items())
    generation = max([candidate.generation for candidate in now] or [line.generation for line in lines], default=0)
    return (
        f"generation {generation}, {len(lines)} of {total} evaluations" + (f" ({counts})" if counts else "") + f", {elapsed_s:.0f} s"
        + (f", about {left_s:.0f} s left" if left_s else "")
    )  # fmt: skip


_GENERATION = _Column("gen", lambda line: str(line.generation), lambda candidate: str(candidate.generation))
_CANDIDATE = _Column("candidate", lambda line: line.candidate_id, lambda candidate: candidate.candidate_id)
_ORIGIN = _Column("origin", lambda line: line.origin, lambda candidate: candidate.origin)
_STATUS = _Column("status", lambda line: _status(line), lambda _candidate: "running")
_ENGINE = _Column("engine", lambda line: engine_of(line))


def _fitness(evidence: Evidence) -> _Column:
    return _Column("fitness", lambda line: fitness_of(line, evidence) if line.fitness is not None else "-", right=True)


def _measured(lines: Sequence[EvaluationRecord], catalogue: Catalogue, *, narrow: bool = False) -> list[_Column]:
    """Return the columns of the catalogue's metrics; for a narrow table only those marked for it."""
    shown = [(metric, metric.column) for metric in catalogue.every() if metric.column]
    return [_metric(metric, column, lines, catalogue) for metric, column in shown if column.narrow or not narrow]


def _metric(metric: Metric, column: Column, lines: Sequence[EvaluationRecord], catalogue: Catalogue) -> _Column:
    """Return the column of a metric. With many samples it shows the percentiles for which some evaluation has enough samples, and their
    number."""
    if metric.many:
        most = max((n for line in lines if (n := samples_of(line.metrics, metric)) is not None), default=None)
        percentiles = shown_percentiles(most) or ("p50",)
        title = f"{column.title} {metric.unit}".rstrip() + f"\n{' / '.join(percentiles)}" + ("" if most is None else " (n)")
        return _Column(title, lambda line: spread(line.metrics, metric, column.digits, percentiles), right=True)
    title = error_rate_of([line.metrics for line in lines], metric, catalogue) if metric.counts_errors else column.title
    return _Column(title, lambda line: _bound(line, metric) + _number(line.metrics.get(metric.name), column.digits), right=True)


def error_rate_of(measured: Sequence[Mapping[str, Any]], metric: Metric, catalogue: Catalogue) -> str:
    """Return the title of an error rate, with `wer` or `cer`. All evaluations of a run count in the same unit."""
    key = catalogue.key(ERROR_UNIT, metric.service)
    name = next((rate_name(unit) for metrics in measured if (unit := metrics.get(key))), "WER").lower()
    title, usual = metric.column.title if metric.column else metric.label, WER.column.title if WER.column else ""
    return title.removesuffix(usual) + name if title.endswith(usual) else title


def _bound(line: EvaluationRecord, metric: Metric) -> str:
    """Return the sign before a value that is only a lower bound, else ""."""
    return "≥" if line.metrics.get(metric.at_least) is True else ""


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _knob(name: str) -> _Column:
    return _Column(name, lambda line: str(line.params.get(name, "")), lambda candidate: str(candidate.params.get(name, "")))


def _full(names: Sequence[str], measured: Sequence[_Column], fitness: _Column) -> list[_Column]:
    knobs = [_knob(name) for name in names]
    return [_GENERATION, _CANDIDATE, _ORIGIN, *knobs, _STATUS, *measured, _ENGINE, fitness]


def _medium(names: Sequence[str], measured: Sequence[_Column], fitness: _Column) -> list[_Column]:
    """Return the columns with all knobs' values in one column."""
    return [_GENERATION, _CANDIDATE, _ORIGIN, _values(names), _STATUS, *measured, _ENGINE, fitness]


def _narrow(names: Sequence[str], fitness: _Column) -> list[_Column]:
    return [_CANDIDATE, _values(names), _STATUS, _ENGINE, fitness]


def engine_of(line: EvaluationRecord) -> str:
    """Return whether the engine was started or reused, or a dash if the evaluation ended before."""
    if line.engine_reused:
        return "reused"
    return "started" if engine_started(line) else "-"


def _values(names: Sequence[str]) -> _Column:
    def joined(params: Mapping[str, Any]) -> str:
        return " ".join(str(params[name]) for name in names if name in params)

    return _Column("configuration", lambda line: joined(line.params), lambda candidate: joined(candidate.params))


def _status(line: EvaluationRecord) -> str:
    if line.fitness is not None:
        return f"{line.outcome}, saturated" if line.saturated else line.outcome
    return f"{line.outcome}: {line.failure.kind if line.failure else ', '.join(line.violations)}"
