"""The Grafana dashboard of the catalogue's gauges. `python -m tune_gpu.report.grafana > tune_gpu/report/grafana.json` writes it anew.

With the name of a space, or its file, it writes the dashboard of that space: `python -m tune_gpu.report.grafana SPACE > FILE`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.metrics import EVALUATIONS, LIVE, PAIR

_COLUMNS, _HEIGHT = 24, 8
_UNITS = {"ms": "ms", "%": "percent", "MiB": "mbytes"}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_FILTER = '{experiment=~"$experiment"}'


@dataclass
class _Panel:
    title: str
    unit: str = "none"
    description: str = ""
    stat: bool = False
    """One number; else a line over time."""
    queries: list[tuple[str, str]] = field(default_factory=list)
    """(expression, legend)."""


def dashboard(catalogue: Catalogue = PAIR) -> dict[str, Any]:
    """Return the dashboard as Grafana imports it: a panel for each measured gauge and each reading of the device; latencies share one."""
    measured, live = _measured(catalogue), _live(catalogue)
    counted = _Panel("Evaluations by status", stat=True, queries=[(f"sum by (status) (ray_{EVALUATIONS}_total{_FILTER})", "{{status}}")])
    panels = sorted([*measured, *live, counted], key=lambda panel: panel.stat)
    experiments = {"query": f"label_values(ray_{EVALUATIONS}_total, experiment)", "refId": "experiment"}
    return {
        "title": "tune_gpu", "uid": "tune-gpu", "schemaVersion": 39, "version": 1, "tags": ["tune_gpu", "ray"], "timezone": "browser", "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"}, "editable": True,
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
            {"name": "experiment", "type": "query", "datasource": _SOURCE, "query": experiments, "refresh": 2, "includeAll": True, "multi": True,
             "current": {"text": "All", "value": "$__all"}},
        ]},
        "panels": list(_placed(panels)),
    }  # fmt: skip


def _measured(catalogue: Catalogue) -> list[_Panel]:
    found: dict[str, _Panel] = {}
    for name, metrics in sorted(catalogue.gauges().items(), key=lambda item: not item[1][0].of_line):  # the fitness first
        metric = metrics[0]
        if metric.gauge is None:
            continue
        label = metric.label.removesuffix(f" of {metric.service}")
        title = "Latency, p95" if metric.many and metric.unit == "ms" else label[:1].upper() + label[1:]
        panel = found.setdefault(title, _Panel(title, _unit(metric), metric.gauge.description, metric.gauge.total))
        query = f"ray_{name}{_FILTER}"
        legend = metric.gauge.legend or ("" if title != "Latency, p95" else label)
        if metric.service:  # one gauge shows all services, so that only what is measured names the line
            legend = f"{{{{service}}}} {metric.short.removesuffix(f'_{metric.unit}')}" if title == "Latency, p95" else "{{service}}"
        panel.queries.append((f"sum({query})", legend) if metric.gauge.total else (query, f"{legend} {{{{candidate}}}}".lstrip()))
    return list(found.values())


def _live(catalogue: Catalogue) -> list[_Panel]:
    found: dict[str, _Panel] = {}
    alone = {live.panel for live in LIVE if sum(other.panel == live.panel for other in LIVE) == 1}
    for live in LIVE:
        panel = found.setdefault(live.panel, _Panel(live.panel, _UNITS.get(live.unit, "none"), live.description))
        legend = "{{service}} " if live.of_service and catalogue.names_services else "" if live.panel in alone else f"{live.unit} "
        panel.queries.append((f"ray_{live.gauge}{_FILTER}", f"{legend}{{{{candidate}}}}"))
    return list(found.values())


def _unit(metric: Metric) -> str:
    return "percentunit" if metric.counts_errors else _UNITS.get(metric.unit, "none")


def _placed(panels: list[_Panel]) -> Iterator[dict[str, Any]]:
    """Yield the panels from left to right, row after row."""
    x = y = 0
    for number, panel in enumerate(panels, 1):
        width = _COLUMNS // 4 if panel.stat else _COLUMNS // 2
        if x + width > _COLUMNS:
            x, y = 0, y + _HEIGHT
        yield _as_grafana(panel, number, {"x": x, "y": y, "w": width, "h": _HEIGHT})
        x += width


def _as_grafana(panel: _Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    drawn: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    if not panel.stat:
        drawn["custom"] = {"drawStyle": "line", "pointSize": 6, "showPoints": "always", "spanNulls": False}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number, "type": "stat" if panel.stat else "timeseries", "title": panel.title, "description": panel.description, "gridPos": place,
        "datasource": _SOURCE, "fieldConfig": {"defaults": drawn, "overrides": []}, "options": options,
        "targets": [{"refId": letter, "expr": query, "legendFormat": legend} for letter, (query, legend) in zip(ascii_uppercase, panel.queries, strict=False)],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(dashboard(catalogue_for(load_config((sys.argv[1:] or [DEFAULT_SPACE])[0], []))), indent=1))
