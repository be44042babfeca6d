"""A metric is one entry of the catalogue: a made-up one appears wherever metrics are named."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tests.support.runs import ARTIFACTS, RUN
from tune_gpu import metrics
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import RunRecord, read_run
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.findings import FindingRecord
from tune_gpu.cli.progress import describe_measured
from tune_gpu.cli.progress_table import make_progress_table
from tune_gpu.common.metric import Better, Column, Metric, Protocol
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.observe import turns_by_arrival
from tune_gpu.compare.rounds import findings_of
from tune_gpu.compare.samples import Replicate, Turn
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import ConfirmSettings
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.experiment.checks import check_config
from tune_gpu.ray_tune.live_metrics import gauges_of
from tune_gpu.report.data import report_data
from tune_gpu.report.grafana import dashboard
from tune_gpu.report.markdown import as_markdown
from tune_gpu.report.metric_rows import rows_in
from tune_gpu.report.page import as_html
from tune_gpu.workload import turn as workload_turn
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.summary import summarise
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


def turn(at: float, n_tokens: int) -> workload_turn.Turn:
    heard, answer = TranscriptionSample(at, at + 0.1, "yes", 1.0), GenerationSample(at + 0.1, [at + 0.2, at + 0.3], n_tokens)
    return workload_turn.Turn(at, "clip", "yes", {"stt": heard, "llm": answer})


def window(n_tokens: int) -> WindowResult:
    turns = [turn(float(at), n_tokens + at % 2) for at in range(6)]
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
    gauges = metrics.PAIR.gauges()
    (tokens,), (fans,) = gauges["tune_gpu_answer_tokens_p95"], gauges["tune_gpu_fan_pct"]
    assert metric_at(line, tokens.line_path) == 8.0
    assert metric_at(line, fans.line_path) == 41.5
    assert tokens.gauge_help == "Tokens of an answer, 95th percentile."
    text = json.dumps(dashboard())
    assert "ray_tune_gpu_answer_tokens_p95" in text
    assert "ray_tune_gpu_fan_pct" in text


TWO_LLMS = metrics.catalogue_of({"small": Protocol.COMPLETION, "large": Protocol.COMPLETION})
TOKENS_OF_BOTH = ["small.answer_tokens", "large.answer_tokens"]


@pytest.fixture
def two(record: RunRecord) -> RunRecord:
    """The run as two LLMs would have measured it: each has the answers of the one."""

    def both(line: EvaluationRecord) -> EvaluationRecord:
        many = dict.fromkeys(TOKENS_OF_BOTH, line.metrics[TOKENS.name]) | {"turn_ms": line.metrics["voice_turn_ms"]}
        return replace(line, metrics=many | {FANS.name: 41.5, "n_requests": 6, "n_failed": 0})

    return replace(record, lines=tuple(both(line) if line.fitness is not None else line for line in record.lines))


def test_it_is_one_of_each_service_that_has_it() -> None:
    names = [metric.name for metric in TWO_LLMS.of_entry(TOKENS)]
    assert names == TOKENS_OF_BOTH
    assert {f"{name}.p95" for name in names} | {FANS.name} <= TWO_LLMS.objective_paths().keys()
    assert {metric.of_turn for metric in TWO_LLMS.of_turns()} >= {"small.n_tokens", "large.n_tokens"}


def test_two_services_are_compared_by_it_each() -> None:
    def turn(small: float, large: float) -> Turn:
        return Turn({"small.answer_tokens": small, "large.answer_tokens": large})

    replicates = [Replicate(arm, number, (turn(small, 10.0 + number),) * 8) for number in range(4) for arm, small in (("ours", 20.0), ("theirs", 10.0))]
    kept = [Replicate.from_dict(json.loads(json.dumps(replicate.as_dict()))) for replicate in replicates]
    assert kept == replicates
    findings = findings_of(kept, "ours", "theirs", standard_metrics(95, catalogue=TWO_LLMS), alpha=0.05, tolerances=TWO_LLMS.tolerances(), seed=0)
    found = {finding.metric.name: finding for finding in findings}
    small, large = (found[f"{name}.p95"].record() for name in TOKENS_OF_BOTH)
    assert (small.effect and small.effect.estimate, large.effect and large.effect.estimate) == (100.0, 0.0)
    assert (small.label, large.label) == ("tokens of an answer of small at p95", "tokens of an answer of large at p95")
    assert FindingRecord.parse(small.dump(), "finding") == small
    assert "named" not in findings_of(kept, "ours", "theirs", standard_metrics(95), alpha=0.05, tolerances={}, seed=0)[0].record().dump()


def test_the_report_of_two_services_shows_it_of_each(two: RunRecord) -> None:
    best = next(line for line in two.lines if line.fitness is not None)
    rows = {row.label: row.winner for row in rows_in(two.lines, best.params, None, TWO_LLMS)}
    assert rows["tokens of an answer of small, median"] == rows["tokens of an answer of large, median"] == 7.5
    assert rows["fans of the card, %"] == 41.5
    page = as_html(report_data(replace(two, summary=None)), None, None, TWO_LLMS)
    assert "turn p95, ms" in page or "turn p50, ms" in page


def test_the_live_table_of_two_services_has_a_column_of_each(two: RunRecord) -> None:
    console = Console(file=io.StringIO(), width=400, height=60)
    console.print(make_progress_table(console, two.lines, [], [], evidence_of(two.lines), TWO_LLMS, total=9, elapsed_s=1.0, left_s=None))
    assert {"small tokens", "large tokens", "fans", "turn ms"} <= set(re.findall(r"(?:small |large |turn )?(?:tokens|fans|ms)", console.file.getvalue()))  # type: ignore[attr-defined]
    line = next(line for line in two.lines if line.fitness is not None)
    assert re.search(r"small tokens .*large tokens .*fans 41\.5, ", describe_measured(line.metrics, TWO_LLMS))


def test_one_gauge_shows_it_of_both_services(two: RunRecord) -> None:
    line = next(line for line in two.lines if line.fitness is not None).dump()
    shown = TWO_LLMS.gauges()["tune_gpu_answer_tokens_p95"]
    assert [(metric.service, metric_at(line, metric.line_path)) for metric in shown] == [("small", 8.0), ("large", 8.0)]
    text, tags = gauges_of(TWO_LLMS)["tune_gpu_answer_tokens_p95"]
    assert (text, tags[-1]) == ("Tokens of an answer, 95th percentile.", "service")
    assert "service" not in gauges_of(TWO_LLMS)["tune_gpu_fan_pct"][1]
    drawn = dashboard(TWO_LLMS)
    legends = {target["expr"]: target["legendFormat"] for panel in drawn["panels"] for target in panel["targets"]}
    assert legends['ray_tune_gpu_answer_tokens_p95{experiment=~"$experiment"}'] == "{{service}} {{candidate}}"
    assert legends['ray_tune_gpu_ttft_p95_ms{experiment=~"$experiment"}'] == "{{service}} ttft {{candidate}}"
    assert legends['ray_tune_gpu_kv_cache_usage_pct{experiment=~"$experiment"}'] == "{{service}} {{candidate}}", "a reading of each service, too"
    assert gauges_of(TWO_LLMS)["tune_gpu_kv_cache_usage_pct"][1][-1] == "service"
    assert "service" not in gauges_of(TWO_LLMS)["tune_gpu_device_memory_mib"][1]
