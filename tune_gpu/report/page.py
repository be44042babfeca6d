"""The report as one self-contained HTML file, with styles, Plotly and the figures. Its policy forbids the network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import carries, largest_carried, least_samples, statistic_text
from tune_gpu.common.wording import counted, duration_text
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import PAIR, VOICE_TURN, WER, finding_entry
from tune_gpu.report.data import ReportData, describe
from tune_gpu.report.importance import importance_of, importance_text
from tune_gpu.report.memory_map import memory_map
from tune_gpu.report.plots import (
    MOST_ROWS,
    costs_by_candidate,
    device_during_run,
    fitness_by_generation,
    knob_importance,
    latency_distributions,
    moments_a_point,
    pareto_front,
)


@dataclass(frozen=True)
class Picture:
    """A figure with its place and its text."""

    key: str
    title: str
    words: str
    figure: go.Figure | None
    """None if it is not drawn; the words give the reason."""


def pictures(
    data: ReportData, plan: Mapping[str, Any] | None, objectives: Mapping[str, str] | None, catalogue: Catalogue = PAIR
) -> dict[str, Picture]:
    """Return every figure for which this run has data."""
    lines, summary = data.lines, data.summary
    measured = [line for line in lines if line.fitness is not None]
    best, base = (summary.best, summary.baseline) if summary else (None, None)
    made: list[Picture] = []

    def add(key: str, title: str, words: str, figure: go.Figure | None) -> None:
        if figure is not None:
            made.append(Picture(key, title, words, figure))

    if lines:
        add("fitness", "Fitness by generation", "Each mark is one evaluation; a ring says that it survived its tournament, a star that the elite was measured again.",
            fitness_by_generation(lines, summary, data.errors))  # fmt: skip
    if measured:
        add("latency", "Latencies", f"By each configuration's last evaluation{_some('the {} fittest configurations', lines)}, the slowest at the bottom.{_few_turns(measured, catalogue)}",
            latency_distributions(lines, best.params if best else None, base.params if base else None, catalogue))  # fmt: skip
        add("pareto", "What no other beats", "The front of the run's objectives." if objectives and len(objectives) > 1 else
            f"This run had a single objective; the front is drawn over {_classic(catalogue)}.", pareto_front(lines, objectives, catalogue))  # fmt: skip
        importance = importance_of(lines)
        predicts = importance is not None and importance.caution is None
        made.append(Picture("importance", "Which knob mattered", importance_text(importance), knob_importance(importance) if importance and predicts else None))
    add("memory", "What fits, and what was tried", "Predicted before anything started: the least headroom in an engine's share after one sequence of max_model_len, over all other knobs.",
        memory_map(plan, lines))  # fmt: skip
    if any((line.metrics.get("device_trace") or {}).get("at") for line in measured):
        together = moments_a_point(lines)
        drawn = "by the second" if together == 1 else f"the highest of every {together} seconds"
        add("device", "The device during the run", f"Sampled ten times a second under load, drawn {drawn}.", device_during_run(lines))
    if lines:
        add("costs", "Where the minutes went", f"By evaluation{_some('the last {}', lines)}.", costs_by_candidate(lines))
    return {picture.key: picture for picture in made}


def _classic(catalogue: Catalogue) -> str:
    """Return what the front of a run with one number is drawn over."""
    turn = "the delay of a voice turn" if catalogue is PAIR else "the delay of a turn"
    return f"{turn} and {'the recognition errors (wer)' if catalogue.of_entry(WER) else 'the fitness'}"


def _few_turns(measured: Sequence[EvaluationRecord], catalogue: Catalogue) -> str:
    """Return what is left out if some evaluation has fewer turns than p95 takes."""
    turn = catalogue.of(VOICE_TURN)
    fewest = min((int(n) for line in measured if (n := metric_at(line.metrics, turn.at("n"))) is not None), default=None)
    if fewest is None or carries(fewest, "p95"):
        return ""
    return f" Some have only {counted(fewest, turn.label)}: p95 is drawn from {least_samples(95)} on, and p99 from {least_samples(99)} on."


def _some(words: str, lines: Sequence[Any]) -> str:
    """Return which part of a long run is drawn; nothing for a run that fits into a figure."""
    return f" ({words.format(MOST_ROWS)})" if len(lines) > MOST_ROWS else ""


def as_html(
    data: ReportData, plan: Mapping[str, Any] | None = None, objectives: Mapping[str, str] | None = None, catalogue: Catalogue = PAIR
) -> str:
    """Return the page. Of `plan` (plan.json) it draws what fits, and of `objectives` the front."""
    found = pictures(data, plan, objectives, catalogue)
    figures = {key: json.loads(picture.figure.to_json()) for key, picture in found.items() if picture.figure is not None}
    return _template().render(
        data=data, pictures=found, describe=describe, columns=evaluation_columns(data.error_rate, data.lines, catalogue), effect_digits=effect_digits,
        cell=cell, counted=counted, figures=_embedded(figures), plotly=Markup(_plotly()), number=number, duration_text=duration_text,  # noqa: S704 - Plotly's own
    )  # fmt: skip


def evaluation_columns(error_rate: str, lines: Sequence[EvaluationRecord], catalogue: Catalogue = PAIR) -> list[tuple[str, str, int]]:
    """Return the metrics that are shown for every evaluation: heading, path and digits of each. A percentile that no evaluation carries is replaced
    by the largest that one does."""
    found = []
    for metric in catalogue.every():
        if metric.reported is None or not metric.reported.each:
            continue
        title = metric.label.replace(WER.label, error_rate) if metric.counts_errors else metric.column.title if metric.column else metric.label
        if metric.many:
            statistic = metric.reported.at[-1]
            most = max((int(n) for line in lines if (n := metric_at(line.metrics, metric.at("n"))) is not None), default=None)
            if most is not None and not carries(most, statistic):
                statistic = largest_carried(most) or statistic
            found.append((f"{title} {statistic}" + (f", {metric.unit}" if metric.unit else ""), metric.at(statistic), metric.reported.digits))
        else:
            found.append((title, metric.name, metric.reported.digits))
    return found


def cell(line: EvaluationRecord, path: str, digits: int) -> str:
    """Return a metric of an evaluation for people; a percentile with the count of its samples."""
    value, (name, _, statistic) = metric_at(line.metrics, path), path.rpartition(".")
    n = metric_at(line.metrics, f"{name}.n") if name else None
    return number(value, digits) if value is None or n is None else statistic_text(number(value, digits), int(n), statistic)


def effect_digits(name: str) -> int:
    """Return the digits of an effect of this metric of a comparison."""
    metric = finding_entry(name)
    return max(2, metric.compared.digits) if metric and metric.compared else 2


def number(value: Any, digits: int = 4, signed: bool = False) -> str:
    """Return a number for people, or a dash for None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _embedded(content: Any) -> Markup:
    """Return JSON for a script element, which nothing in it can end (HTML standard, "Restrictions for contents of script elements")."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - no tag is left in it


@cache
def _plotly() -> str:
    """Return the library without the name of the server for its maps, because this page loads nothing."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


@cache
def _template() -> Any:
    text = resources.files("tune_gpu.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(text)


