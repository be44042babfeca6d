"""The catalogue of metrics: what it declares, and what it names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from tune_gpu import metrics
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import PERCENTILES, STATISTICS
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import ExperimentConfig, ObjectiveSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.workload.percentiles import Distribution


def test_the_settings_that_the_catalogue_names_exist() -> None:
    config = ExperimentConfig()
    for metric in metrics.CATALOGUE.values():
        for setting in (metric.target, metric.limit and metric.limit.setting):
            assert not setting or setting in ObjectiveSettings.__dataclass_fields__
        if metric.needs.setting:
            attrgetter(metric.needs.setting)(config)


def test_a_distribution_keeps_every_statistic_of_the_catalogue() -> None:
    found = Distribution.of([1.0, 2.0])
    assert found is not None
    assert {*found.as_dict()} == {*STATISTICS, "n"}
    assert [found.at(percentile) for percentile in PERCENTILES] == [found.as_dict()[f"p{percentile}"] for percentile in PERCENTILES]


def test_a_term_as_an_objective_needs_what_its_metric_needs() -> None:
    settings = ["objective.weights.capacity=0", "workload.capacity_step_s=0", "search.objectives={fitness_terms.capacity: max, wer: min}"]
    with pytest.raises(UserError, match=r"fitness_terms\.capacity: it is not measured with workload\.capacity_step_s=0"):
        check_config(load_config(DEFAULT_SPACE, settings, "cpu"))


PRODUCERS = {
    "metrics.py": "the catalogue",
    "workload/summary.py": "measures the traffic",
    "evaluation/scoring.py": "measures the device and scores",
    "evaluation/engine_metrics.py": "what services report of themselves",
}
OTHER_RECORDS = {
    ("compare/measuring_actor.py", "n_requests"): "a window of the soak, not of an evaluation",
    ("compare/measuring_actor.py", "oom_events"): "the same",
    ("compare/measuring_actor.py", "service_memory_mib"): "the same",
    ("promote/soak.py", "n_requests"): "the record of the soak",
    ("promote/soak.py", "oom_events"): "the same",
    ("promote/soak.py", "service_memory_mib"): "the same",
    ("experiment/refusals.py", "kv_cache_tokens"): "what the engine said of itself at its start",
    ("evaluation/memory_check/combined.py", "kv_cache_tokens"): "what is predicted of the engine",
    ("evaluation/errors.py", "wer"): "a part of fitness_errors",
    ("compare/setup.py", "capacity"): "the setting confirm.capacity",
    ("workload/clients/generation.py", "prompt_tokens"): "a key of the usage in OpenAI's API",
    ("testing/fake_server.py", "prompt_tokens"): "the same",
    ("workload/sessions/achieved.py", "prompt_tokens"): "of the filling",
    ("config/foreign.py", "prompt_tokens"): "a setting of auxiliary requests",
}
"""Keys of other records that share a metric's name."""
FIELDS = {metrics.FITNESS.name, metrics.FITNESS_STDERR.name}
"""Fields of a candidate's record and of Tune's report, which are read by name everywhere."""


def test_a_metrics_name_stands_in_the_catalogue_and_its_producer() -> None:
    package = Path(metrics.__file__).parent
    names = metrics.CATALOGUE.keys() - FIELDS
    compared = {metric.compared_name for metric in metrics.PAIR.compared()} - FIELDS
    found = {
        (str(path.relative_to(package)), text.partition(".")[0])
        for path in sorted(package.rglob("*.py"))
        for text in strings_of(ast.parse(path.read_text(encoding="utf-8")))
        if text.partition(".")[0] in (names | compared if path.parent.name == "compare" else names)
    }
    assert {one for one in found if one[0] not in PRODUCERS} == OTHER_RECORDS.keys()
    templates = " ".join(path.read_text(encoding="utf-8") for path in package.rglob("*.j2"))
    assert not [name for name in names if "_" in name and name in templates]


def test_a_producer_writes_each_name_once() -> None:
    package = Path(metrics.__file__).parent
    names = metrics.CATALOGUE.keys() - FIELDS
    written = [text for path in PRODUCERS if path != "metrics.py" for text in strings_of(ast.parse((package / path).read_text(encoding="utf-8"))) if text in names]
    assert sorted(written) == sorted(set(written))


def strings_of(tree: ast.AST) -> Iterator[str]:
    """Yield the string literals and the pieces of f-strings; what has a blank is prose."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not any(letter.isspace() for letter in node.value):
            yield node.value
