"""A trial's numbers on Ray's own metrics port, for its dashboard, Prometheus and Grafana (`tune_gpu/report/grafana.json` asks for these).

Ray puts `ray_` before each name and `_total` behind a counter's. Every sample carries the experiment, the candidate and the generation.
Ray stops exporting a gauge that is not set again within two export intervals (20 s). So results are set again until the actor ends, and
live values disappear by themselves when the load ends.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import EVALUATIONS, LIVE, gauges
from tune_gpu.telemetry.sampler import DeviceSample

TAGS = ("experiment", "candidate", "generation", "device")
REFRESH_S = 5.0
KEPT = 50
"""Number of candidates whose results stay on the port: the latest ones."""


def _gauges() -> dict[str, str]:
    """Return the name of every gauge with its help text."""
    return {name: metric.gauge_help for name, metric in gauges().items()} | {live.gauge: live.help for live in LIVE}


class TrialMetrics:
    """Gauges and counters of one trial's actor. Ray must be up; `close` ends it.

    Args:
        experiment: its name.
        device: `cuda` or `cpu`.
    """

    def __init__(self, experiment: str, device: str) -> None:
        self._tags = {"experiment": experiment, "device": device}
        self._now: dict[str, str] = {}
        self._gauges = {name: Gauge(name, description=text, tag_keys=TAGS) for name, text in _gauges().items()}
        self._evaluations = Counter(EVALUATIONS, description="Evaluations that ended, by status.", tag_keys=(*TAGS, "status"))
        self._measured: dict[str, tuple[dict[str, str], dict[str, float | None]]] = {}
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="tune-gpu-metrics", daemon=True)
        self._keeper.start()

    def begin(self, candidate: Mapping[str, Any]) -> None:
        """Label everything from now on with this candidate."""
        self._now = self._tags | {"candidate": str(candidate["candidate_id"]), "generation": str(candidate["generation"])}

    def observe(self, moment: DeviceSample) -> None:
        """Set the gauges of the device to this sample."""
        self._set(self._now, {live.gauge: getattr(moment, live.field) for live in LIVE})

    def ended(self, record: EvaluationRecord) -> None:
        """Set the numbers of an evaluation that has ended. What was not measured is left out."""
        line = record.dump()
        tags, values = self._now, {name: metric_at(line, metric.line_path) for name, metric in gauges().items()}
        self._set(tags, values)
        self._evaluations.inc(1.0, tags=tags | {"status": str(record.status)})
        self._measured = dict([*self._measured.items(), (tags["candidate"], (tags, values))][-KEPT:])

    def close(self) -> None:
        """Stop setting the gauges."""
        self._closed.set()
        self._keeper.join()

    def _keep(self) -> None:
        while not self._closed.wait(REFRESH_S):
            for tags, values in self._measured.values():
                self._set(tags, values)

    def _set(self, tags: dict[str, str], values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._gauges[name].set(float(value), tags=tags)
