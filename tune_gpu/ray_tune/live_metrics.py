"""A trial's numbers on Ray's own metrics port, for its dashboard, Prometheus and Grafana (`tune_gpu/report/grafana.json` asks for these).

Ray puts `ray_` before each name and `_total` behind a counter's. Every sample carries the experiment, the candidate and the generation.
A gauge that is not set again within two of Ray's export intervals (20 s) is exported no longer: what was measured is set again until the
actor ends, what is live vanishes by itself when the load does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.telemetry.sampler import DeviceSample

TAGS = ("experiment", "candidate", "generation", "device")
MEASURED = {  # name -> (where it stands in a candidate's line, what it is)
    "tune_gpu_fitness": ("fitness", "Fitness of the candidate's last evaluation."),
    "tune_gpu_fitness_stderr": ("fitness_stderr", "Standard error of the fitness (jackknife over the windows of the evaluation)."),
    "tune_gpu_stt_latency_p95_ms": ("metrics.stt_latency_ms.p95", "Speech to text, 95th percentile, milliseconds."),
    "tune_gpu_llm_latency_p95_ms": ("metrics.llm_latency_ms.p95", "LLM answer, 95th percentile, milliseconds."),
    "tune_gpu_ttft_p95_ms": ("metrics.ttft_ms.p95", "Time to first token, 95th percentile, milliseconds."),
    "tune_gpu_voice_turn_p95_ms": ("metrics.voice_turn_ms.p95", "End of speech to the first token, 95th percentile, milliseconds."),
    "tune_gpu_word_error_rate": ("metrics.wer", "Word error rate, a share; a character error rate where the line's wer_unit says so."),
    "tune_gpu_concurrent_sessions": ("metrics.concurrent_capacity", "Simultaneous voice sessions within the latency targets."),
    "tune_gpu_oom_events": ("metrics.oom_events", "Out-of-memory kills, and requests that Whisper had no memory for."),
}
LIVE = {  # name -> (field of a Moment, what it is)
    "tune_gpu_device_utilization_pct": ("utilization_pct", "Utilisation of the device under load, per cent."),
    "tune_gpu_device_memory_mib": ("used_mib", "Memory of the device in use, MiB."),
    "tune_gpu_device_clock_mhz": ("clock_mhz", "Clock of the card's multiprocessors, MHz."),
    "tune_gpu_device_power_w": ("power_w", "Power draw of the card, watts."),
    "tune_gpu_kv_cache_usage_pct": ("kv_cache_pct", "Share of the engine's KV cache in use, per cent."),
}
EVALUATIONS = "tune_gpu_evaluations"
REFRESH_S = 5.0
KEPT = 50
"""Candidates whose numbers are kept on the port, the latest."""


class TrialMetrics:
    """Gauges and counters of one trial's actor. Ray must be up; `close` ends it.

    Args:
        experiment: its name.
        device: `cuda` or `cpu`.
    """

    def __init__(self, experiment: str, device: str) -> None:
        self._tags = {"experiment": experiment, "device": device}
        self._now: dict[str, str] = {}
        self._gauges = {name: Gauge(name, description=text, tag_keys=TAGS) for name, (_, text) in (MEASURED | LIVE).items()}
        self._evaluations = Counter(EVALUATIONS, description="Evaluations that ended, by status.", tag_keys=(*TAGS, "status"))
        self._measured: dict[str, tuple[dict[str, str], dict[str, float | None]]] = {}
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="tune-gpu-metrics", daemon=True)
        self._keeper.start()

    def begin(self, candidate: Mapping[str, Any]) -> None:
        """What comes now is of this candidate."""
        self._now = self._tags | {"candidate": str(candidate["candidate_id"]), "generation": str(candidate["generation"])}

    def observe(self, moment: DeviceSample) -> None:
        """The device in this second."""
        self._set(self._now, {name: getattr(moment, field) for name, (field, _) in LIVE.items()})

    def ended(self, record: EvaluationRecord) -> None:
        """Set the numbers of an evaluation that has ended. What was not measured is left out."""
        line = record.dump()
        tags, values = self._now, {name: metric_at(line, path) for name, (path, _) in MEASURED.items()}
        self._set(tags, values)
        self._evaluations.inc(1.0, tags=tags | {"status": str(record.status)})
        self._measured = dict([*self._measured.items(), (tags["candidate"], (tags, values))][-KEPT:])

    def close(self) -> None:
        """Set nothing again."""
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
