"""A ramp's end and saturation are named in the line, the table, the summary and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.support.made_run import FAST, SLOW, line, made_run
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.cli.progress import describe_measured, describe_saturation
from tune_gpu.cli.progress_table import make_progress_table
from tune_gpu.experiment.warnings import warnings_of
from tune_gpu.report.data import report_data


def warned(made: EvaluationRecord) -> EvaluationRecord:
    found: dict[str, Any] = {"saturated": True, "offered": 7, "answered_in_time": 3, "growth_ms_per_s": 3400.0}
    return replace(made, metrics={**made.metrics, "concurrent_capacity": 4, "capacity_at_ceiling": True, "saturation": found})


def test_a_line_and_the_table_name_both() -> None:
    made = warned(line("g0-c0", SLOW, 0.5))
    assert "sessions at least 4, " in describe_measured(made.metrics)
    assert describe_saturation(made.metrics) == "saturated (3 of 7 turns answered within their window), "
    console = Console(width=400, height=40, record=True)
    console.print(make_progress_table(console, [made], [], list(SLOW), evidence_of([made]), total=1, elapsed_s=1.0, left_s=None))
    shown = console.export_text()
    assert "≥4" in shown
    assert "ok, saturated" in shown
    other = replace(made, metrics=made.metrics | {"capacity_at_ceiling": False, "saturation": {"saturated": False, "offered": 7, "answered_in_time": 7}})
    assert "sessions 4, " in describe_measured(other.metrics)
    assert describe_saturation(other.metrics) == ""


def test_the_warnings_count_evaluations_and_name_the_best_and_the_baseline() -> None:
    lines = [warned(line("g0-c0", SLOW, 0.5)), warned(line("g0-c1", FAST, 0.6)), line("g0-c2", {"a": 1}, 0.4), line("g0-c3", {"a": 2}, None, n_windows=0)]
    ceiling, saturated = warnings_of(lines, FAST, SLOW)
    assert "2 of 3 evaluations, the best and the baseline among them" in ceiling
    assert "lower bounds" in ceiling
    assert "workload.capacity_max_sessions" in ceiling
    assert "2 of 3 evaluations, the best and the baseline among them" in saturated
    assert "workload.turn_rate_per_s" in saturated
    assert warnings_of(lines[2:], None, {}) == ()


def test_late_answers_of_too_few_turns_are_named_as_what_they_are() -> None:
    found: dict[str, Any] = {"saturated": None, "offered": 3, "answered_in_time": 0, "growth_ms_per_s": None}
    late = replace(line("g0-c0", SLOW, 0.5), metrics={"saturation": found})
    assert late.saturated is None
    assert describe_saturation(late.metrics) == "late (0 of 3 turns answered within their window), "
    [caveat] = warnings_of([late, line("g0-c1", FAST, 0.6)], FAST, SLOW)
    assert caveat.startswith("most turns were answered only after their window had ended in 1 of 2 evaluations, the baseline among them")


def test_a_capacity_of_no_session_is_explained() -> None:
    none = replace(line("g0-c0", SLOW, 0.5), metrics={"concurrent_capacity": 0, "capacity_at_ceiling": False})
    [caveat] = warnings_of([none, line("g0-c1", FAST, 0.6)], FAST, SLOW)
    assert caveat.startswith("0 sessions in 1 of 2 evaluations, the baseline among them: even a single session misses the latency targets")


def test_the_report_repeats_what_the_summary_warns_of(tmp_path: Path) -> None:
    record = read_run(tmp_path, made_run(tmp_path).run_id)
    assert record.summary is not None
    assert record.summary.warnings == ()
    warnings = warnings_of([warned(each) for each in record.lines], FAST, SLOW)
    caveats = report_data(replace(record, summary=replace(record.summary, warnings=warnings))).caveats
    assert [caveat for caveat in caveats if caveat.startswith("Saturated: more turns arrived than were served in 2 of 2 evaluations")]
    assert [caveat for caveat in caveats if caveat.startswith("The ramp ended at its limit")]


def test_answers_that_ended_early_are_no_silent_comparison() -> None:
    short, shorter = (replace(made, metrics={**made.metrics, "llm.ended_early_pct": pct}) for made, pct in ((line("g0-c0", SLOW, 0.5), 12.5), (line("g0-c1", FAST, 0.6), 40.0)))
    [caveat] = warnings_of([short, shorter, line("g0-c2", {"a": 1}, 0.4)], FAST, SLOW)
    assert caveat.startswith("llm ended up to 40 % of its answers before workload.max_tokens in 2 of 3 evaluations, the best and the baseline among them")


def test_a_baseline_that_could_not_be_measured_is_said() -> None:
    lines = [line("g0-c0", SLOW, None, n_windows=0), line("g0-c1", FAST, 0.6)]
    [caveat] = warnings_of(lines, FAST, SLOW)
    assert caveat == "the baseline could not be measured (startup_oom: no room), so that it is not known if the winner is better"
    assert warnings_of([*lines, line("g1-c0", SLOW, 0.5)], FAST, SLOW) == (), "it was measured later"
