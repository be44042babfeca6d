"""The figures of a run, made with Plotly, the same in the report and in the notebooks.

Backgrounds are transparent and every colour is legible on light and on dark, so that a page may choose. Strings of the artifacts are
escaped, because Plotly interprets tags in its labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import plotly.graph_objects as go

from tune_gpu.artifacts.deployments import errors_of
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric, carries
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import FITNESS, LIVE, PAIR, VOICE_TURN, WER, LiveGauge
from tune_gpu.report.costs import PARTS, cost_parts
from tune_gpu.report.data import describe
from tune_gpu.report.importance import Importance
from tune_gpu.search.pareto import fronts, matrix

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#4c8dd6", "#e69f00", "#2ca27b", "#e0603c", "#b276b2", "#8a8f98"
ORIGINS = {"baseline": (BLUE, "square"), "initial": (GREY, "circle"), "offspring": (GREEN, "circle"), "elite": (ORANGE, "star"),
           "fresh": (PURPLE, "diamond")}  # fmt: skip
VERDICTS = {"fits": GREEN, "uncertain": ORANGE, "infeasible": RED, "not_modelled": GREY}
_LINE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
_PART_COLOURS = (GREEN, BLUE, PURPLE, "#7fb3e6", "#c9b1d9", ORANGE, RED)
MOST_ROWS, MOST_MOMENTS, MOST_TICKS = 100, 1500, 25
"""Most that a figure draws of a long run: more keep a browser busy for minutes, and nobody could read them."""


def figure(height: int, **layout: Any) -> go.Figure:
    """Return an empty figure in the house style."""
    made = go.Figure()
    made.update_layout(
        height=height, margin={"l": 60, "r": 16, "t": 16, "b": 48}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left"}, **layout,
    )  # fmt: skip
    grid = "rgba(138,143,152,0.25)"
    made.update_xaxes(gridcolor=grid, zerolinecolor=grid, automargin=True)
    made.update_yaxes(gridcolor=grid, zerolinecolor=grid, automargin=True)
    return made


def fitness_by_generation(lines: Sequence[EvaluationRecord], summary: RunSummary | None = None, errors: Mapping[str, float] | None = None) -> go.Figure:
    """Draw every evaluation with its standard error, by origin. Rings mark survivors, crosses evaluations without a fitness, the line
    the best so far."""
    made = figure(400)
    places = _places(lines)
    measured = [line for line in lines if line.fitness is not None]
    if measured:
        x = [places[line.candidate_id] for line in measured]
        best: list[float] = []
        for line in measured:
            best.append(max(line.known_fitness, best[-1] if best else -1e9))
        made.add_scatter(x=x, y=best, mode="lines", line={"shape": "hv", "color": GREY, "width": 1, "dash": "dot"}, name="best so far", hoverinfo="skip")
    errors, survivors = errors_of(lines) if errors is None else errors, _survivors(summary)
    kept = [line for line in measured if line.candidate_id in survivors.get(line.generation, [])]
    made.add_scatter(
        x=[places[line.candidate_id] for line in kept], y=[line.fitness for line in kept], mode="markers", name="survivor",
        marker={"size": 19, "symbol": "circle-open", "color": GREY, "line": {"width": 2}}, hoverinfo="skip",
    )  # fmt: skip
    for origin, (colour, symbol) in ORIGINS.items():
        members = [line for line in measured if line.origin == origin]
        if members:
            made.add_scatter(
                x=[places[line.candidate_id] for line in members], y=[line.fitness for line in members], mode="markers", name=origin,
                marker={"size": 10, "color": colour, "symbol": symbol}, text=[about(line, errors.get(line.candidate_id)) for line in members], hovertemplate="%{text}<extra></extra>",
                error_y={"type": "data", "array": [errors.get(line.candidate_id, 0.0) for line in members], "thickness": 1, "width": 3, "color": colour},
            )  # fmt: skip
    lost = [line for line in lines if line.fitness is None]
    if lost:
        floor = min((line.known_fitness for line in measured), default=0.0)
        made.add_scatter(
            x=[places[line.candidate_id] for line in lost], y=[floor] * len(lost), mode="markers", name="without a fitness",
            marker={"size": 10, "color": RED, "symbol": "x"}, text=[about(line) for line in lost], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    generations = sorted({line.generation for line in lines})
    made.update_xaxes(title="generation", tickvals=generations[:: -(-len(generations) // MOST_TICKS) or 1], zeroline=False, range=[-0.5, max(generations, default=0) + 0.5])
    made.update_yaxes(title="fitness ± standard error")
    return made


def latency_distributions(
    lines: Sequence[EvaluationRecord], winner: Mapping[str, Any] | None = None, baseline: Mapping[str, Any] | None = None, catalogue: Catalogue = PAIR
) -> go.Figure:
    """Draw median to p95 of each configuration's last evaluation, for the fittest `MOST_ROWS`, with a tick at p99, as far as its samples carry
    them. Winner and baseline are named."""
    last: dict[str, EvaluationRecord] = {}
    for line in lines:
        if line.fitness is not None:
            last[describe(line.params)] = line
    fittest = sorted(last.values(), key=lambda line: (not _role(line, winner, baseline), -line.known_fitness))[:MOST_ROWS]
    slowness = catalogue.of(VOICE_TURN).at("p95")
    chosen = sorted(fittest, key=lambda line: -(metric_at(line.metrics, slowness) or 0.0))
    made = figure(140 + 28 * len(chosen), barmode="overlay")
    names = [html.escape(line.candidate_id) + _role(line, winner, baseline) for line in chosen]
    wanted = [metric for metric in catalogue.every() if metric.many and metric.reported and metric.reported.plotted]
    plotted = [metric for metric in wanted if not metric.needs.sessions or any(metric_at(line.metrics, metric.at("p50")) is not None for line in chosen)]
    for metric, colour in zip(plotted, cycle(_LINE_COLOURS), strict=False):
        label = metric.label
        p50, p95, p99 = ([_carried(line, metric, statistic) for line in chosen] for statistic in ("p50", "p95", "p99"))
        made.add_scatter(
            x=p50, y=names, mode="markers", name=label, marker={"color": colour, "size": 9}, text=[about(line) for line in chosen],
            error_x={"type": "data", "symmetric": False, "array": _gaps(p50, p95), "arrayminus": [0] * len(chosen), "color": colour, "thickness": 4, "width": 0},
            hovertemplate="%{text}<br>" + label + " median %{x:.0f} ms<extra></extra>",
        )  # fmt: skip
        made.add_scatter(
            x=p99, y=names, mode="markers", marker={"symbol": "line-ns-open", "size": 11, "color": colour}, showlegend=False,
            hovertemplate=label + " p99 %{x:.0f} ms<extra></extra>",
        )  # fmt: skip
    made.update_xaxes(title="ms: median ● to p95 ▬, p99 |", rangemode="tozero")
    return made


def _carried(line: EvaluationRecord, metric: Metric, statistic: str) -> float | None:
    """Return a percentile of an evaluation, or None if its samples do not carry it. A program that did not count them is believed."""
    n = metric_at(line.metrics, metric.at("n"))
    return metric_at(line.metrics, metric.at(statistic)) if n is None or carries(int(n), statistic) else None


def classic_objectives(catalogue: Catalogue) -> dict[str, str]:
    """Return what the front is drawn over where the run had one number only: the delay of a turn, and the first error rate or the fitness."""
    turn, other = catalogue.of(VOICE_TURN), next(iter(catalogue.of_entry(WER)), FITNESS)
    return {turn.at("p95"): turn.mode, other.name: other.mode}


def pareto_front(lines: Sequence[EvaluationRecord], objectives: Mapping[str, str] | None = None, catalogue: Catalogue = PAIR) -> go.Figure:
    """Draw the measured evaluations over the first two objectives, with the non-dominated ones joined.

    Args:
        objectives: metric -> `max` or `min`; by default those of `classic_objectives`.
        catalogue: the metrics of the space.
    """
    (x_path, x_way), (y_path, y_way) = list((objectives if objectives and len(objectives) > 1 else classic_objectives(catalogue)).items())[:2]
    scored = [(line, {**line.metrics, "fitness": line.fitness}) for line in lines if line.fitness is not None]
    known = [(line, metric_at(metrics, x_path), metric_at(metrics, y_path)) for line, metrics in scored]
    points = [(line, x, y) for line, x, y in known if x is not None and y is not None]
    made = figure(380)
    if points:
        front = fronts(matrix([[x, y] for _, x, y in points], [x_way, y_way]))[0]
        edge = sorted((points[index] for index in front), key=lambda point: point[1])
        made.add_scatter(x=[x for _, x, _ in edge], y=[y for *_, y in edge], mode="lines", line={"color": ORANGE, "dash": "dot", "shape": "linear"}, name="front", hoverinfo="skip")
        for label, colour, members in (("beaten", GREY, [p for i, p in enumerate(points) if i not in front]), ("beaten by none", ORANGE, edge)):
            made.add_scatter(x=[x for _, x, _ in members], y=[y for *_, y in members], mode="markers", name=label, marker={"color": colour, "size": 10},
                             text=[about(line) for line, *_ in members], hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>")  # fmt: skip
    made.update_xaxes(title=f"{html.escape(x_path)} ({'less' if x_way == 'min' else 'more'} is better)")
    made.update_yaxes(rangemode="nonnegative", title=f"{html.escape(y_path)} ({'less' if y_way == 'min' else 'more'} is better)")
    return made


def knob_importance(found: Importance) -> go.Figure:
    """Return how much each knob matters to the fitness, with the spread over shuffles."""
    made = figure(120 + 34 * len(found.names))
    made.add_bar(
        x=found.mean[::-1], y=[html.escape(name) for name in found.names[::-1]], orientation="h", marker={"color": BLUE}, showlegend=False,
        error_x={"type": "data", "array": found.std[::-1], "color": GREY}, hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    made.update_xaxes(title="loss of R² when shuffled")
    return made


def device_during_run(lines: Sequence[EvaluationRecord]) -> go.Figure:
    """Draw utilisation, memory, KV-cache use, clock and power under load, second by second. Between windows nothing is sampled.

    In a long run each point is the highest of several neighbouring moments, so that there are at most `MOST_MOMENTS`.
    """
    made = figure(460)
    seen = set()
    together = moments_a_point(lines)
    drawn = [(live, column) for live in LIVE for column in _columns(lines, live)]
    for (live, column), colour in zip(drawn, cycle(_LINE_COLOURS), strict=False):
        axis = {"%": "y", "MiB": "y2"}.get(live.unit, "y3")
        at: list[datetime | None] = []
        values: list[float | None] = []
        for moments in _in_turn(lines, column, together):
            previous = None
            for when, value in moments:
                if previous is not None and when - previous > 3.0 and together == 1:
                    at.append(None)
                    values.append(None)
                at.append(datetime.fromtimestamp(when, UTC))
                values.append(value)
                previous = when
            if moments:
                at.append(None)
                values.append(None)
        if any(value is not None for value in values):
            seen.add(axis)
            made.add_scatter(x=at, y=values, mode="lines+markers" if together == 1 else "lines", marker={"size": 4}, line={"color": colour, "width": 1.5}, name=_legend(live, column), yaxis=axis, connectgaps=False)
    line_colour = "rgba(138,143,152,0.25)"
    grid = {"gridcolor": line_colour, "zerolinecolor": line_colour, "automargin": True, "rangemode": "tozero"}
    shares = {"y": (0.56, 1.0), "y2": (0.0, 0.46)} if "y3" not in seen else {"y": (0.7, 1.0), "y2": (0.35, 0.62), "y3": (0.0, 0.27)}
    made.update_layout(yaxis={**grid, "domain": shares["y"], "title": "%", "range": [0, 105]}, yaxis2={**grid, "domain": shares["y2"], "title": "MiB"})
    if "y3" in seen:
        made.update_layout(yaxis3={**grid, "domain": shares["y3"], "title": "MHz, W"})
    made.update_xaxes(title="UTC", anchor=max(seen | {"y2"}))
    return made


def costs_by_candidate(lines: Sequence[EvaluationRecord]) -> go.Figure:
    """Return how the seconds of each evaluation were spent; in a long run those of the last `MOST_ROWS`."""
    spent = [(html.escape(line.candidate_id), cost_parts(line)) for line in reversed(lines[-MOST_ROWS:])]
    made = figure(140 + 26 * len(spent), barmode="stack")
    labels = [*PARTS, *sorted({part for _, parts in spent for part in parts} - set(PARTS))]
    for index, part in enumerate(labels):
        if any(part in parts for _, parts in spent):
            made.add_bar(x=[parts.get(part, 0.0) for _, parts in spent], y=[name for name, _ in spent], orientation="h", name=html.escape(part),
                         marker={"color": _PART_COLOURS[index % len(_PART_COLOURS)]}, hovertemplate="%{y}: %{x:.1f} s<extra>" + html.escape(part) + "</extra>")  # fmt: skip
    made.update_xaxes(title="seconds")
    return made


def moments_a_point(lines: Sequence[EvaluationRecord]) -> int:
    """Return how many moments of the device each point of `device_during_run` stands for."""
    return max(1, -(-sum(len(_trace_of(line).get("at") or []) for line in lines) // MOST_MOMENTS))


def _trace_of(line: EvaluationRecord) -> Mapping[str, Any]:
    trace: Mapping[str, Any] = line.metrics.get("device_trace") or {}
    return trace


def _columns(lines: Sequence[EvaluationRecord], live: LiveGauge) -> list[str]:
    """Return the columns of the traces with this reading: one, or one for each service."""
    if not live.of_service:
        return [live.field]
    return list(dict.fromkeys(name for line in lines for name in _trace_of(line) if name.rpartition(".")[2] == live.field))


def _legend(live: LiveGauge, column: str) -> str:
    service = column.rpartition(".")[0]
    return f"{live.label}{f' ({html.escape(service)})' if service else ''}, {live.unit}"


def _in_turn(lines: Sequence[EvaluationRecord], column: str, together: int) -> Iterator[list[tuple[float, float | None]]]:
    """Yield the moments of each evaluation. If several form a point, yield the highest of each group of the whole run."""
    each = [list(zip(_trace_of(line).get("at") or [], _trace_of(line).get(column) or [], strict=False)) for line in lines]
    if together == 1:
        yield from each
        return
    whole = [moment for moments in each for moment in moments]
    yield [max(whole[first : first + together], key=lambda moment: -math.inf if moment[1] is None else moment[1]) for first in range(0, len(whole), together)]


def _places(lines: Sequence[EvaluationRecord]) -> dict[str, float]:
    """Return candidate -> its place on the axis: beside the others of its generation, in the order of evaluation."""
    places = {}
    for generation in {line.generation for line in lines}:
        members = [line.candidate_id for line in lines if line.generation == generation]
        for index, name in enumerate(members):
            places[name] = generation + (index - (len(members) - 1) / 2) * min(0.14, 0.8 / len(members))
    return places


def _survivors(summary: RunSummary | None) -> dict[int, tuple[str, ...]]:
    return {one.generation: one.survivors for one in summary.generations} if summary else {}


def about(line: EvaluationRecord, error: float | None = None) -> str:
    """Return a line for a hover label."""
    lines_of_text = [f"<b>{html.escape(line.candidate_id)}</b> {html.escape(line.origin)}", html.escape(describe(line.params))]
    if line.fitness is not None:
        lines_of_text.append(f"fitness {line.fitness:.4f}" + (f" ± {error:.4f}" if error is not None else ""))
    else:
        lines_of_text.append(html.escape(str(line.failure.kind if line.failure else "against a constraint")))
    return "<br>".join(lines_of_text)


def _role(line: EvaluationRecord, winner: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> str:
    roles = [name for name, params in (("winner", winner), ("baseline", baseline)) if params is not None and line.params == params]
    return f" <b>{', '.join(roles)}</b>" if roles else ""


def _gaps(low: Sequence[float | None], high: Sequence[float | None]) -> list[float]:
    return [b - a if a is not None and b is not None else 0.0 for a, b in zip(low, high, strict=True)]
