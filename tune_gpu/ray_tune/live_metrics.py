"""Export a trial's metrics on Ray's metrics port, for its dashboard, Prometheus and Grafana (`tune_gpu/report/grafana.json` queries them).

Ray adds the prefix `ray_` to each name and the suffix `_total` to counters. Every sample is labelled with the experiment, the candidate and
the generation. Ray stops exporting a gauge that is not set again within two export intervals (20 s). Therefore results are set again until
the actor ends, and live values disappear by themselves when the load ends. In a space that names its services, the gauges of a service's
metrics are also labelled with the service.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.util.metrics import Counter, Gauge

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import EVALUATIONS, LIVE, PAIR
from tune_gpu.telemetry.sampler import DeviceSample

TAGS = ("experiment", "candidate", "generation", "device")
SERVICE = "service"
"""The tag with a metric's service, in a space that names its services."""
REFRESH_S = 5.0
KEPT = 50
"""Number of candidates whose results stay exported: the latest ones."""


def gauges_of(catalogue: Catalogue) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the name of every gauge with its help text and its tags."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {
        name: (help_of(metrics), (*TAGS, SERVICE) if any(metric.service for metric in metrics) else TAGS) for name, metrics in catalogue.gauges().items()
    }
    return found | {live.gauge: (live.help, (*TAGS, SERVICE) if live.of_service and catalogue.names_services else TAGS) for live in LIVE}


def help_of(metrics: Sequence[Metric]) -> str:
    """Return the help text of a gauge that shows these metrics."""
    return " / ".join(dict.fromkeys(metric.gauge_help.removesuffix(".") for metric in metrics)) + "."


Sample = tuple[str, str, float | None]
"""Gauge, service (empty for none) and value."""


class TrialMetrics:
    """Gauges and counters of one trial's actor. Ray must be up. `close` ends the exports.

    Args:
        experiment: the experiment's name.
        device: `cuda` or `cpu`.
        catalogue: the metrics of the space.
    """

    def __init__(self, experiment: str, device: str, catalogue: Catalogue = PAIR) -> None:
        self._catalogue = catalogue
        self._tags = {"experiment": experiment, "device": device}
        self._now: dict[str, str] = {}
        self._gauges = {name: Gauge(name, description=text, tag_keys=tags) for name, (text, tags) in gauges_of(catalogue).items()}
        self._evaluations = Counter(EVALUATIONS, description="Evaluations that ended, by status.", tag_keys=(*TAGS, "status"))
        self._measured: dict[str, tuple[dict[str, str], list[Sample]]] = {}
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="tune-gpu-metrics", daemon=True)
        self._keeper.start()

    def begin(self, candidate: Mapping[str, Any]) -> None:
        """Label all later samples with this candidate."""
        self._now = self._tags | {"candidate": str(candidate["candidate_id"]), "generation": str(candidate["generation"])}

    def observe(self, moment: DeviceSample) -> None:
        """Set the gauges of the device and of the services to this sample."""
        self._set(self._now, ((live.gauge, "", getattr(moment, live.field)) for live in LIVE if not live.of_service))
        of_services = [live for live in LIVE if live.of_service]
        for service, readings in moment.gauges.items():
            tag = service if self._catalogue.names_services else ""
            self._set(self._now, ((live.gauge, tag, readings.get(live.field)) for live in of_services))

    def ended(self, record: EvaluationRecord) -> None:
        """Set the metrics of an evaluation that has ended. Metrics that were not measured are left out."""
        line = record.dump()
        tags = self._now
        values = [(name, metric.service, metric_at(line, metric.line_path)) for name, metrics in self._catalogue.gauges().items() for metric in metrics]
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

    def _set(self, tags: dict[str, str], values: Iterable[Sample]) -> None:
        for name, service, value in values:
            if value is not None:
                self._gauges[name].set(float(value), tags=tags | {SERVICE: service} if service else tags)
