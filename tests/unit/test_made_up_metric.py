"""A metric is one entry of the catalogue: a made-up one appears wherever metrics are named."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from tests.support.runs import ARTIFACTS, RUN
from tune_gpu import metrics
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import RunRecord, read_run
from tune_gpu.cli.progress import describe_measured
from tune_gpu.cli.progress_table import make_progress_table
from tune_gpu.common.metric import Better, Column, Metric, Protocol
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.observe import turns_by_arrival
from tune_gpu.compare.rounds import findings_of
from tune_gpu.compare.samples import Replicate
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import ConfirmSettings
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.experiment.checks import check_config
from tune_gpu.report.data import report_data
from tune_gpu.report.grafana import dashboard
from tune_gpu.report.markdown import as_markdown
from tune_gpu.report.page import as_html
from tune_gpu.workload.clients import LlmSample, SttSample
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.voice_turn import TurnSample
from tune_gpu.workload.window import WindowResult

TOKENS = Metric(
    "answer_tokens", (Protocol.COMPLETION,), "tokens of an answer", "Tokens of an answer", better=Better.HIGHER, many=True, of_turn="llm.n_tokens",
    column=Column("tokens"),
)  # fmt: skip
FANS = Metric("fan_pct", (Protocol.DEVICE,), "fans of the card", "Speed of the card's fans, per cent.", "%", column=Column("fans"))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in (TOKENS, FANS):
        monkeypatch.setitem(metrics.CATALOGUE, entry.name, entry)


@pytest.fixture
def record() -> RunRecord:
    """A run that measured both."""
    found = read_run(ARTIFACTS, RUN)
    measured = summarise([window(7)]).as_metrics()[TOKENS.name]
    lines = [replace(line, metrics={**line.metrics, TOKENS.name: measured, FANS.name: 41.5}) if line.fitness is not None else line for line in found.lines]
    return replace(found, lines=tuple(lines))


def window(n_tokens: int) -> WindowResult:
    turns = [TurnSample(float(at), "clip", "yes", SttSample(at, at + 0.1, "yes", 1.0), LlmSample(at + 0.1, [at + 0.2, at + 0.3], n_tokens + at % 2)) for at in range(6)]
    return WindowResult("mixed", 10.0, turns)


def test_its_samples_are_taken_from_the_turns() -> None:
    assert summarise([window(7)]).as_metrics()["answer_tokens"]["p50"] == 7.5


def test_it_can_be_an_objective() -> None:
    settings = ["search.objectives={answer_tokens.p95: max, fan_pct: min}"]
    check_config(load_config(DEFAULT_SPACE, settings, "cpu"))
    assert metric_at(summarise([window(7)]).as_metrics(), "answer_tokens.p95") == 8.0


def test_it_is_compared_by_its_turns_with_a_tolerance() -> None:
    replicates = [Replicate(arm, number, turns_by_arrival([window(n)])) for number in range(4) for arm, n in (("ours", 20), ("theirs", 10))]
    kept = [Replicate.from_dict(json.loads(json.dumps(replicate.as_dict()))) for replicate in replicates]
    findings = findings_of(kept, "ours", "theirs", standard_metrics(95), alpha=0.05, tolerances=ConfirmSettings().tolerances, seed=0)
    found = next(finding for finding in findings if finding.metric.name == "answer_tokens.p95")
    assert (str(found.verdict), found.tolerance, found.metric.unit) == ("better", 10.0, "%")
    assert "fan_pct" not in [finding.metric.name for finding in findings], "no turn has it"


def test_the_report_shows_it(record: RunRecord) -> None:
    data = report_data(record)
    rows = {row.label: row.winner for row in data.rows}
    assert rows["tokens of an answer, median"] == 7.5
    assert rows["fans of the card, %"] == 41.5
    assert "tokens of an answer, median" in as_html(data)
    assert "fans of the card, %" in as_markdown(data)


def test_the_live_table_has_its_column(record: RunRecord) -> None:
    console = Console(file=io.StringIO(), width=400, height=60)
    console.print(make_progress_table(console, record.lines, [], [], evidence_of(record.lines), total=9, elapsed_s=1.0, left_s=None))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "tokens" in text
    assert "fans" in text
    line = next(line for line in record.lines if line.fitness is not None)
    assert "tokens p50 8 (n=6), fans 41.5, " in describe_measured(line.metrics)


def test_prometheus_and_grafana_have_its_gauge(record: RunRecord) -> None:
    line = next(line for line in record.lines if line.fitness is not None).dump()
    gauges = metrics.gauges()
    assert metric_at(line, gauges["tune_gpu_answer_tokens_p95"].line_path) == 8.0
    assert metric_at(line, gauges["tune_gpu_fan_pct"].line_path) == 41.5
    assert gauges["tune_gpu_answer_tokens_p95"].gauge_help == "Tokens of an answer, 95th percentile."
    text = json.dumps(dashboard())
    assert "ray_tune_gpu_answer_tokens_p95" in text
    assert "ray_tune_gpu_fan_pct" in text


def test_a_service_of_its_protocol_names_it() -> None:
    assert metrics.named({"llm": Protocol.COMPLETION})["llm.answer_tokens"] is TOKENS
