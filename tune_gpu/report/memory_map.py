"""A map of the plan: the predicted memory of each configuration, with the evaluated ones marked."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.report.plots import BLUE, GREEN, RED, VERDICTS, about, figure

_WORST = ("fits", "not_modelled", "uncertain", "infeasible")


def memory_map(plan: Mapping[str, Any] | None, lines: Sequence[EvaluationRecord]) -> go.Figure | None:
    """Draw the predictions as squares over the two knobs that affect memory most (the least headroom over the others), and evaluations as
    dots.

    Return None if the run has no plan, or the plan has no predictions.
    """
    cells = [cell for cell in (plan or {}).get("candidates") or [] if isinstance(cell, Mapping) and isinstance(cell.get("params"), Mapping)]
    knobs = _two_that_matter(cells)
    if knobs is None:
        return None
    x_knob, y_knob = knobs
    xs, ys = _levels(cells, x_knob), _levels(cells, y_knob)
    made = figure(180 + 84 * len(ys))
    for verdict, colour in VERDICTS.items():
        squares = [(x, y, members) for x in xs for y in ys if (members := _at(cells, knobs, x, y)) and _verdict(members) == verdict]
        if squares:
            made.add_scatter(
                x=[_label(x) for x, _, _ in squares], y=[_label(y) for _, y, _ in squares], mode="markers+text", name=verdict.replace("_", " "),
                marker={"symbol": "square", "size": 46, "color": colour, "opacity": 0.35}, text=[_headroom(members) for *_, members in squares],
                textposition="bottom center", textfont={"size": 11}, hovertemplate="%{x}, %{y}: %{text} headroom<extra>" + verdict + "</extra>",
            )  # fmt: skip
    for label, colour, symbol, wanted in (("tried: measured", BLUE, "circle", True), ("tried: not measured", RED, "x", False)):
        tried = [line for line in lines if (line.fitness is not None) is wanted]
        if tried:
            made.add_scatter(x=[_label(line.params.get(x_knob)) for line in tried], y=[_label(line.params.get(y_knob)) for line in tried], mode="markers",
                             name=label, marker={"size": 9, "color": colour, "symbol": symbol}, text=[about(line) for line in tried],
                             hovertemplate="%{text}<extra></extra>")  # fmt: skip
    made.update_xaxes(title=html.escape(x_knob), type="category", categoryorder="array", categoryarray=[_label(x) for x in xs])
    made.update_yaxes(title=html.escape(y_knob), type="category", categoryorder="array", categoryarray=[_label(y) for y in ys])
    return made


def predicted_parts(cell: Mapping[str, Any]) -> go.Figure:
    """Draw one prediction as a bar of its parts."""
    made = figure(190, barmode="stack")
    for index, (part, mib) in enumerate(cell["parts_mib"].items()):
        colours = (BLUE, GREEN, "#e69f00", "#b276b2", "#8a8f98", RED, "#7fb3e6")
        made.add_bar(x=[mib], y=["MiB"], orientation="h", name=html.escape(part), marker={"color": colours[index % len(colours)]})
    made.update_xaxes(title="MiB")
    return made


def _two_that_matter(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the two knobs whose values change the headroom most."""
    known = [cell for cell in cells if cell.get("headroom_mib") is not None]
    names = sorted({name for cell in cells for name in cell["params"]})
    if len(names) < 2:
        return None
    spread = {}
    for name in names:
        means = [np.mean([c["headroom_mib"] for c in known if c["params"].get(name) == level] or [0.0]) for level in _levels(known, name)]
        spread[name] = float(np.ptp(means)) if means else 0.0
    first, second = sorted(names, key=lambda name: -spread[name])[:2]
    return first, second


def _levels(cells: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """Return the values of a knob in the order of the plan, which is the space's."""
    seen: dict[str, Any] = {}
    for cell in cells:
        seen.setdefault(repr(cell["params"].get(name)), cell["params"].get(name))
    return list(seen.values())


def _at(cells: Sequence[Mapping[str, Any]], knobs: tuple[str, str], x: Any, y: Any) -> list[Mapping[str, Any]]:
    return [cell for cell in cells if cell["params"].get(knobs[0]) == x and cell["params"].get(knobs[1]) == y]


def _verdict(members: Sequence[Mapping[str, Any]]) -> str:
    """Return the worst verdict."""
    return max((str(member.get("verdict")) for member in members), key=lambda verdict: _WORST.index(verdict) if verdict in _WORST else 0)


def _headroom(members: Sequence[Mapping[str, Any]]) -> str:
    known = [float(member["headroom_mib"]) for member in members if member.get("headroom_mib") is not None]
    return "?" if not known else f"{min(known) / 1024:+.1f} GiB" if abs(min(known)) >= 1024 else f"{min(known):+.0f} MiB"


def _label(value: Any) -> str:
    return "-" if value is None else html.escape(f"{value:g}" if isinstance(value, float) else str(value))
