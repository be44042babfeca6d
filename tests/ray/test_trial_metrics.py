"""A trial's numbers on the metrics port of a real Ray node, and the Grafana dashboard that asks for them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from tests.support.runs import ARTIFACTS, RUN
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.metric import GAUGE_AT
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import EVALUATIONS, LIVE, PAIR
from tune_gpu.ray_tune.live_metrics import TrialMetrics
from tune_gpu.telemetry.sampler import DeviceSample

pytestmark = pytest.mark.ray
WHO = {"experiment": "spica_gpu_allocation", "device": "cpu"}


@pytest.fixture(scope="module")
def exported() -> Iterator[dict[str, list[tuple[dict[str, str], float]]]]:
    """What the node exports after an actor has told it a measured line, a failed one, and a moment of the device."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:

        class Trial:
            def __init__(self) -> None:
                self.metrics = TrialMetrics(WHO["experiment"], WHO["device"])

            def tell(self, line: EvaluationRecord, moment: DeviceSample | None) -> None:
                self.metrics.begin({"candidate_id": line.candidate_id, "generation": line.generation})
                if moment is not None:
                    self.metrics.observe(moment)
                self.metrics.ended(line)

        record = read_run(ARTIFACTS, RUN)
        measured = with_every_gauge(next(line for line in record.lines if line.fitness is not None))
        failed = next(line for line in record.lines if line.status == "failed")
        actor: Any = ray.remote(Trial)
        trial = actor.remote()
        ray.get(trial.tell.remote(measured, DeviceSample(0.0, 81.5, 6000.0, 1500.0, 140.0, gauges={"vllm": {"kv_cache_pct": 12.5}})))
        ray.get(trial.tell.remote(failed, None))
        node = ray.nodes()[0]
        yield _scraped(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", f"ray_{EVALUATIONS}_total", 2)
    finally:
        ray.shutdown()



def with_every_gauge(line: EvaluationRecord) -> EvaluationRecord:
    """Return the line with a number for each gauge, because the recorded run is of a program that had fewer metrics."""
    missing = [metric for (metric,) in PAIR.gauges().values() if metric_at(line.dump(), metric.line_path) is None]
    return replace(line, metrics=line.metrics | {metric.name: {GAUGE_AT: 1.0} if metric.many else 1.0 for metric in missing})


def _scraped(url: str, until: str, count: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Ray hands numbers on every few seconds: read until so many samples of this name are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=5) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for sample in (sample for family in families for sample in family.samples):
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        if len(found.get(until, [])) >= count:
            return found
        time.sleep(0.5)  # the port has no event to wait for
    raise AssertionError(f"{until} never came: {sorted(name for name in found if 'tune' in name)}")


def test_what_was_measured_is_exported_under_its_candidate_and_generation(exported: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    record = read_run(ARTIFACTS, RUN)
    line = next(line for line in record.lines if line.fitness is not None)
    ((labels, value),) = exported["ray_tune_gpu_fitness"]
    assert value == pytest.approx(line.fitness)
    assert labels.items() >= (WHO | {"candidate": line.candidate_id, "generation": str(line.generation)}).items()
    assert exported["ray_tune_gpu_voice_turn_p95_ms"][0][1] == pytest.approx(line.metrics["voice_turn_ms"]["p95"])
    assert exported["ray_tune_gpu_kv_cache_usage_pct"][0][1] == 12.5
    assert exported["ray_tune_gpu_device_memory_mib"][0][1] == 6000.0


def test_a_failure_is_counted_and_exports_no_number(exported: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    counts = {labels["status"]: (labels["candidate"], value) for labels, value in exported[f"ray_{EVALUATIONS}_total"]}
    failed = next(line for line in read_run(ARTIFACTS, RUN).lines if line.status == "failed")
    assert counts["failed"] == (failed.candidate_id, 1.0)
    assert counts["ok"][1] == 1.0
    named = {labels["candidate"] for name in PAIR.gauges() for labels, _ in exported.get(f"ray_{name}", [])}
    assert failed.candidate_id not in named


def test_the_grafana_dashboard_queries_exactly_these_metrics(exported: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    dashboard = json.loads(resources.files("tune_gpu.report").joinpath("grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(?:ray_)?tune_gpu_\w+", query)}
    ours = {f"ray_{name}" for name in (*PAIR.gauges(), *(live.gauge for live in LIVE))} | {f"ray_{EVALUATIONS}_total"}
    assert asked == ours
    assert asked == {name for name in exported if name.startswith("ray_tune_gpu_") and not name.endswith("_created")}, "each is really exported"
    legends = {label for panel in dashboard["panels"] for target in panel["targets"] for label in re.findall(r"{{(\w+)}}", target["legendFormat"])}
    known = set.intersection(*(set(labels) for name in (f"ray_{EVALUATIONS}_total",) for labels, _ in exported[name]))
    assert legends | {"experiment"} <= known
