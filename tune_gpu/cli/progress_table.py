"""The table of a run on a terminal: as much of it as the terminal has room for."""

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

from tune_gpu.artifacts.lines import engine_started
from tune_gpu.config.languages import rate_name
from tune_gpu.search.tournament import Candidate

Line = Mapping[str, Any]
_AROUND = 8
"""Rows that title, head and borders take."""


def ms(metrics: Mapping[str, Any], name: str) -> str:
    """Median and p95."""
    value = metrics.get(name)
    return f"{value['p50']:.0f} / {value['p95']:.0f}" if value else "-"


def fitness_of(line: Line) -> str:
    """With its standard error, where that is known."""
    error = line.get("fitness_stderr")
    return f"{line['fitness']:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def table_of(
    console: Console, lines: Sequence[Line], now: Sequence[Candidate], names: Sequence[str], *, total: int, elapsed_s: float, left_s: float | None,
) -> Table:  # fmt: skip
    """The latest evaluations, those that run last, in the fullest form that the console has room for.

    Args:
        console: whose width and height count.
        lines: every evaluation so far.
        now: those under way.
        names: of the knobs.
        total: evaluations that are planned.
        elapsed_s: since the run began.
        left_s: what it may still take; null where nothing tells.
    """
    title = Text(_title(lines, now, total, elapsed_s, left_s))
    room = max(1, console.height - _AROUND)
    now = now[-room:]
    for columns in (_full(names, _error_rate(lines)), _medium(names), _narrow(names)):
        table = _filled(columns, lines, now, title, max(1, room - len(now[1:])))
        if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            break
    return table


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Line], str]
    of_candidate: Callable[[Candidate], str] = lambda _candidate: ""
    """While it runs."""
    right: bool = False


def _filled(columns: Sequence[_Column], lines: Sequence[Line], now: Sequence[Candidate], title: Text, room: int) -> Table:
    table = Table(title=title, title_justify="left", expand=False, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    if len(lines) > room:
        table.caption = f"{len(lines) - room} earlier ones are in the run's folder"
    best = max((line["fitness"] for line in lines if line["fitness"] is not None), default=None)
    for line in lines[-room:]:
        style = "bold green" if line["fitness"] is not None and line["fitness"] == best else None
        table.add_row(*(Text(column.cell(line)) for column in columns), style=style)
    for candidate in now:
        table.add_row(*(Text(column.of_candidate(candidate)) for column in columns), style="yellow")
    return table


def _title(lines: Sequence[Line], now: Sequence[Candidate], total: int, elapsed_s: float, left_s: float | None) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in Counter(line["status"] for line in lines).items())
    generation = max([candidate.generation for candidate in now] or [line["generation"] for line in lines], default=0)
    return (
        f"generation {generation}, {len(lines)} of {total} evaluations" + (f" ({counts})" if counts else "") + f", {elapsed_s:.0f} s"
        + (f", about {left_s:.0f} s left" if left_s else "")
    )  # fmt: skip


_GENERATION = _Column("gen", lambda line: str(line["generation"]), lambda candidate: str(candidate.generation))
_CANDIDATE = _Column("candidate", lambda line: line["candidate_id"], lambda candidate: candidate.candidate_id)
_ORIGIN = _Column("origin", lambda line: line["origin"], lambda candidate: candidate.origin)
_STATUS = _Column("status", lambda line: _status(line), lambda _candidate: "running")
_ENGINE = _Column("engine", lambda line: engine_of(line))
_FITNESS = _Column("fitness", lambda line: fitness_of(line) if line["fitness"] is not None else "-", right=True)


def _latency(title: str, metric: str) -> _Column:
    return _Column(f"{title} ms\np50 / p95", lambda line: ms(line["metrics"], metric), right=True)


def _number(title: str, metric: str, form: str) -> _Column:
    return _Column(title, lambda line: "-" if line["metrics"].get(metric) is None else format(line["metrics"][metric], form), right=True)


def _knob(name: str) -> _Column:
    return _Column(name, lambda line: str(line["params"].get(name, "")), lambda candidate: str(candidate.params.get(name, "")))


def _full(names: Sequence[str], error_rate: str) -> list[_Column]:
    knobs = [_knob(name) for name in names]
    return [_GENERATION, _CANDIDATE, _ORIGIN, *knobs, _STATUS, _latency("stt", "stt_latency_ms"), _latency("llm", "llm_latency_ms"),
            _latency("turn", "voice_turn_ms"), _number(error_rate, "wer", ".3f"), _number("sessions", "concurrent_capacity", "d"), _ENGINE, _FITNESS]  # fmt: skip


def _medium(names: Sequence[str]) -> list[_Column]:
    """The knobs' values in one column."""
    return [_GENERATION, _CANDIDATE, _ORIGIN, _values(names), _STATUS, _latency("turn", "voice_turn_ms"), _ENGINE, _FITNESS]


def _narrow(names: Sequence[str]) -> list[_Column]:
    return [_CANDIDATE, _values(names), _STATUS, _ENGINE, _FITNESS]


def engine_of(line: Line) -> str:
    """Return what became of the engine; a dash where the evaluation never came to it."""
    if line["engine_reused"]:
        return "re-used"
    return "started" if engine_started(line) else "-"


def _error_rate(lines: Sequence[Line]) -> str:
    """`wer` or `cer`: all evaluations of a run count in the same unit."""
    return next((rate_name(unit) for line in lines if (unit := line["metrics"].get("wer_unit"))), "WER").lower()


def _values(names: Sequence[str]) -> _Column:
    def joined(params: Mapping[str, Any]) -> str:
        return " ".join(str(params[name]) for name in names if name in params)

    return _Column("configuration", lambda line: joined(line["params"]), lambda candidate: joined(candidate.params))


def _status(line: Line) -> str:
    if line["fitness"] is not None:
        return str(line["status"])
    return f"{line['status']}: {line['failure']['kind'] if line['failure'] else 'violates ' + ', '.join(line['violations'])}"
