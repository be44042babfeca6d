"""The last lines of a run: each count explained, every number with its unit and n, at any width."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.made_run import FAST, SLOW, line, made_run
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.comparison import ComparisonExcerpt, ConfirmationSummary
from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict
from tune_gpu.artifacts.records.exercise import ExerciseRecord, UnexercisedRecord
from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.cli.last_page import extent_text, fitness_text, print_result
from tune_gpu.experiment.summary import standing_of
from tune_gpu.report.data import report_data
from tune_gpu.report.markdown import as_markdown
from tune_gpu.report.page import as_html
from tune_gpu.search.tournament import Standing


def effect(estimate: float, low: float | None, high: float | None, ours: float, theirs: float, n_pairs: int = 7) -> EffectRecord:
    return EffectRecord(estimate=estimate, low=low, high=high, ours=ours, theirs=theirs, n_rounds=3, n_pairs=n_pairs, confidence=0.9875)


FINDINGS = (
    FindingRecord(metric="voice_turn_ms.p50", verdict="better", unit="%", higher_is_better=False, tolerance=10.0, effect=effect(-55.97, -64.5, -45.4, 800.4, 1817.98)),
    FindingRecord(metric="voice_turn_ms.p95", verdict="unknown", unit="%", higher_is_better=False, tolerance=10.0, effect=effect(-59.5, None, None, 2204.1, 5446.3)),
    FindingRecord(metric="ttft_ms.p95", verdict="unknown", unit="%", higher_is_better=False, tolerance=10.0, effect=effect(-18.5, None, None, 37.5, 45.9)),
    FindingRecord(
        metric="wer", verdict="unknown", unit="WER", higher_is_better=False, tolerance=0.01,
        effect=replace(effect(0.145, -0.184, 0.475, 0.2, 0.05455), n_words=44, n_clips=6),
    ),
    FindingRecord(metric="capacity", verdict="unknown", unit="callers", higher_is_better=True, tolerance=0.5, effect=None),
    FindingRecord(metric="fitness", verdict="unknown", unit="fitness", higher_is_better=True, tolerance=0.01, effect=None),
)  # fmt: skip
"""Those of a recorded confirmation of the default space."""


@pytest.fixture
def summary(tmp_path: Path) -> RunSummary:
    """A run whose baseline was deployed once more, and whose winner was compared with it."""
    made_run(tmp_path)
    found = read_run(tmp_path, "20260131-120000").summary
    assert found is not None
    assert found.best is not None
    assert found.baseline is not None
    decision = Decision(
        verdict=DecisionVerdict.MEASURE_LONGER, reason="3 rounds leave open whether the winner is better.", command="tune-gpu compare 20260131-120000 --budget-s 480",
        about_s=350.0, rests_on="confirmation.json", better=FINDINGS[:1], undecided=FINDINGS[1:],
    )  # fmt: skip
    shown = ComparisonExcerpt(sentence="winner answers 56 % sooner at p50 (45 … 65)", findings=FINDINGS, n_rounds=3, n_turns=7)
    baseline = replace(found.baseline, fitness_stderr=0.05, n_evaluations=4, n_windows=12, n_deployments=5)
    return replace(
        found, decision=decision, baseline=baseline, confirmation=ConfirmationSummary(confirmed=True, confirmed_why="shown better", confirmation=shown),
        n_evaluations=15, n_configurations=11, n_deployments=16, counts={"ok": 14, "against a constraint": 1}, ties=(FAST, SLOW),
        warnings=("0 sessions in 10 of 15 evaluations: even one session alone misses the latency targets of the ramp",),
    )  # fmt: skip


def told(summary: RunSummary, width: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width or 240, force_terminal=width is not None, color_system=None)
    print_result(console, summary)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_last_lines_say_what_got_better_and_what_is_not_known(summary: RunSummary) -> None:
    lines = told(summary).splitlines()
    assert "decision: measure longer: 3 rounds leave open whether the winner is better." in lines
    assert "  next: tune-gpu compare 20260131-120000 --budget-s 480 (about 5 min 50 s)" in lines
    assert "  better: voice turn at the median from 1818 to 800 ms, -56 % (-64.5 to -45.4; 3 rounds, 7 turns)" in lines
    assert (
        "  not known: word error rate from 0.0546 to 0.2, +0.145 WER (3 rounds, 7 turns, 44 words of 6 clips: too few for a tolerance of 0.01, which takes 437); "
        "voice turn and first token at p95 (3 rounds, 7 turns: too few for p95); capacity in simultaneous sessions and fitness were not measured"
    ) in lines
    assert "  rests on: confirmation.json (in brackets: the 98.75 % interval, and how much was measured)" in lines
    assert "confirmed:" not in told(summary), "beside `measure longer` it was read as a decision of its own"
    assert "sooner" not in told(summary), "the metrics are there already"
    assert "  against the baseline: winner answers 56 % sooner at p50 (45 … 65)" in told(replace(summary, decision=None)).splitlines()


def test_why_a_winner_is_not_confirmed_is_printed_once(summary: RunSummary) -> None:
    why = "confirm.enabled=false: no A/B comparison with the baseline has been made"
    decision = Decision(verdict=DecisionVerdict.MEASURE_LONGER, reason=f"the winner is not confirmed: {why}.", command="tune-gpu compare r", rests_on="the search alone")
    unconfirmed = replace(summary, confirmation=ConfirmationSummary(confirmed=False, confirmed_why=why), decision=decision)
    assert told(unconfirmed).count(why) == 1
    assert "rests on" not in told(unconfirmed), "nothing was compared"
    assert f"  not confirmed: {why}" in told(replace(unconfirmed, decision=None)).splitlines()


def test_every_count_of_the_last_lines_is_explained_where_it_stands(summary: RunSummary) -> None:
    text = told(summary)
    assert text.startswith("15 evaluations of 11 configurations (14 ok, 1 against a constraint, 4 of them repeat an earlier one), and 1 more of the baseline at the end, in ")
    assert "fitness 0.4000 ± 0.0500 (mean ± standard error of 5 deployments: 4 evaluations with 12 windows, and 1 more after the search)" in text
    assert "not distinguishable from the winner by these deployments: 1 of the 10 other configurations, the baseline among them" in text


def test_on_80_columns_lines_break_between_words_and_commands_do_not(summary: RunSummary) -> None:
    text, one_line = told(summary, 80), told(summary)
    lines = text.splitlines()
    assert all(len(each) <= 80 for each in lines if "tune-gpu" not in each)
    assert text.split() == one_line.split(), "nothing but the breaks differs"
    assert "  next: tune-gpu compare 20260131-120000 --budget-s 480 (about 5 min 50 s)" in lines


def test_a_run_of_an_older_program_has_its_last_lines_too(summary: RunSummary) -> None:
    assert summary.best is not None
    old = replace(summary, n_deployments=None, decision=None, confirmation=None, warnings=(), ties=(), best=replace(summary.best, n_deployments=None), baseline=None)
    text = told(old)
    assert "at the end" not in text
    assert "fitness 0.6000 (mean of 1 evaluation, 1 window)" in text


def test_the_fitness_of_the_baseline_says_that_anchors_are_in_it() -> None:
    """Its mean held the closing deployment, and `n_evaluations` beside it did not."""
    lines = [line(f"g{i}-c0", SLOW, value, fitness_stderr=0.01, n_windows=3) for i, value in enumerate((0.5, 0.52))]
    anchor = line("anchor-1", SLOW, 0.6, origin="anchor", fitness_stderr=0.01, n_windows=3)
    standing = Standing(SLOW, 0.51, 0.0, 2, 6)
    without = standing_of(lines, standing, evidence=evidence_of(lines))
    beside = standing_of(lines, standing, evidence=evidence_of(lines, [anchor]))
    assert (without.n_evaluations, without.n_deployments, beside.n_evaluations, beside.n_deployments) == (2, 2, 2, 3)
    assert beside.fitness is not None
    assert without.fitness is not None
    assert beside.fitness > without.fitness
    assert without.samples == "2 deployments, 6 windows"
    assert beside.samples == "3 deployments: 2 evaluations with 6 windows, and 1 more after the search"
    assert beside.samples in fitness_text(beside)
    assert StandingRecord.parse(beside.dump(), "summary") == beside


def test_summary_last_lines_and_report_name_the_same_deployments(tmp_path: Path, summary: RunSummary) -> None:
    record = replace(read_run(tmp_path, "20260131-120000"), summary=summary)
    assert summary.baseline is not None
    data = report_data(record)
    page = as_html(data)
    assert f"mean of {summary.baseline.samples}" in page
    assert summary.baseline.samples in told(summary)
    assert summary.decision is not None
    for name, text in summary.decision.group_texts:
        assert f"<dt>{name}</dt><dd>{text}</dd>" in page
        assert f"- {name}: {text}" in as_markdown(data).replace("\\", "")
        assert f"  {name}: {text}" in told(summary).splitlines()
    assert extent_text(summary) in told(summary)


def test_the_last_lines_say_what_the_traffic_did_not_exercise(summary: RunSummary) -> None:
    found = UnexercisedRecord(parameters=("max_model_len", "share"), why="longest prompt with its answer 41 of 4,096 tokens, working set 0.2 % of the KV cache")
    lines = told(replace(summary, exercise=ExerciseRecord(unexercised=(found,), inside_noise=("cores",)))).splitlines()
    assert "  longest prompt with its answer 41 of 4,096 tokens, working set 0.2 % of the KV cache: max_model_len and share could not matter here" in lines
    assert "  inside the noise: cores (no two configurations that differ only in it are shown to differ in fitness)" in lines
    assert "could not matter" in told(replace(summary, best=None, exercise=ExerciseRecord(unexercised=(found,))))
