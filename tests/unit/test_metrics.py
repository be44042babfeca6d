"""The catalogue of metrics: what it declares, and what it names."""

from __future__ import annotations

from operator import attrgetter

import pytest

from tune_gpu import metrics
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import PERCENTILES, STATISTICS, Protocol
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import ExperimentConfig, ObjectiveSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.workload.percentiles import Distribution


def test_the_settings_that_the_catalogue_names_exist() -> None:
    config = ExperimentConfig()
    for metric in metrics.every():
        for setting in (metric.target, metric.limit and metric.limit.setting):
            assert not setting or setting in ObjectiveSettings.__dataclass_fields__
        if metric.needs.setting:
            attrgetter(metric.needs.setting)(config)


def test_a_distribution_keeps_every_statistic_of_the_catalogue() -> None:
    found = Distribution.of([1.0, 2.0])
    assert found is not None
    assert {*found.as_dict()} == {*STATISTICS, "n"}
    assert [found.at(percentile) for percentile in PERCENTILES] == [found.as_dict()[f"p{percentile}"] for percentile in PERCENTILES]


def test_the_default_pair_keeps_the_names_of_version_1() -> None:
    assert [*metrics.named()] == [metric.name for metric in metrics.every()]


def test_metrics_of_other_services_carry_the_services_name() -> None:
    named = metrics.named({"small": Protocol.CHAT, "large": Protocol.COMPLETION, "ears": Protocol.TRANSCRIPTION})
    assert named["small.latency_ms"] is named["large.latency_ms"] is metrics.LLM_LATENCY
    assert named["ears.latency_ms"] is metrics.STT_LATENCY
    assert named["ears.memory_mib"] is named["small.memory_mib"] is metrics.SERVICE_MEMORY
    assert "ears.ttft_ms" not in named
    assert {"voice_turn_ms", "gpu_utilization", "fitness"} <= named.keys()
    assert not {"ttft_ms", "stt_latency_ms", "service_memory_mib"} & named.keys()


def test_a_term_as_an_objective_needs_what_its_metric_needs() -> None:
    settings = ["objective.weights.capacity=0", "workload.capacity_step_s=0", "search.objectives={fitness_terms.capacity: max, wer: min}"]
    with pytest.raises(UserError, match=r"fitness_terms\.capacity: it is not measured with workload\.capacity_step_s=0"):
        check_config(load_config(DEFAULT_SPACE, settings, "cpu"))
