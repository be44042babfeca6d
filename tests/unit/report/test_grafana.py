"""The Grafana dashboard is what the catalogue of metrics gives."""

from __future__ import annotations

import json
from importlib import resources

from tune_gpu.report.grafana import dashboard


def test_the_dashboard_in_the_package_is_the_catalogues() -> None:
    shipped = json.loads(resources.files("tune_gpu.report").joinpath("grafana.json").read_text(encoding="utf-8"))
    assert shipped == dashboard(), "write it anew: python -m tune_gpu.report.grafana > tune_gpu/report/grafana.json"


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [(x, place["y"]) for place in places for x in range(place["x"], place["x"] + place["w"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
