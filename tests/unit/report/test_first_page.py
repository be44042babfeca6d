"""What the first page of recorded runs says that misled their readers."""

from __future__ import annotations

import html
import io
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.runs import ABOVE_ITS_TARGET, ARTIFACTS, MISLEADING, OFF_ITS_FRONT, RUN, WHOLE
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import RunRecord, read_run
from tune_gpu.cli.progress import Progress, describe_measured
from tune_gpu.cli.progress_table import make_progress_table
from tune_gpu.cli.status import describe_run
from tune_gpu.common.metric import carries, largest_carried, statistic_text
from tune_gpu.report.data import report_data
from tune_gpu.report.markdown import as_markdown
from tune_gpu.report.page import as_html, cell, evaluation_columns, pictures


def recorded(run_id: str) -> RunRecord:
    return read_run(MISLEADING, run_id)


def test_the_first_sentence_says_that_a_target_is_far_away() -> None:
    verdict = report_data(recorded(OFF_ITS_FRONT)).verdict
    assert "its first token at p95 is 6758 ms, far outside the target of 500 ms (n=2 samples; what runs: 425 ms)" in verdict.partition(". ")[0] + "."


def test_an_error_rate_above_its_target_is_in_the_first_sentence() -> None:
    first = report_data(recorded(ABOVE_ITS_TARGET)).verdict
    assert first.startswith("By the weights of the objective ")
    assert "is the best, but its word error rate is 0.168, outside the target of 0.1 (what runs: 0.0632). " in first


def test_a_percentile_that_few_samples_do_not_carry_is_not_shown() -> None:
    rows = {row.label: row for row in report_data(recorded(ABOVE_ITS_TARGET)).rows}
    assert rows["voice turn, p95, ms"].winner_text == "n=3: too few for p95"
    assert rows["voice turn, median, ms"].winner_text == "820 (n=3)"
    assert rows["first token, p95, ms"].winner_text == "n=3: too few for p95; median 20", "no other row has its median"
    assert rows["word error rate"].winner_text == "0.1684 (12 transcripts)", "which is what older programs kept"
    assert not rows["voice turn, p95, ms"].comparable
    assert rows["voice turn, p95, ms"].winner == 835.218, "the number for programs stays"


@given(st.integers(1, 300), st.sampled_from([50, 90, 95, 99]))
def test_n_samples_carry_a_percentile_if_one_is_expected_beyond_it(n: int, percentile: int) -> None:
    at = f"p{percentile}"
    assert carries(n, at) == (n >= {50: 2, 90: 10, 95: 20, 99: 100}[percentile])
    largest = largest_carried(n)
    assert (largest is None) == (n < 2)
    assert largest is None or carries(n, largest)
    assert statistic_text("7", n, at) == (f"7 (n={n})" if carries(n, at) else f"n={n}: too few for {at}")
    assert statistic_text("7", None, at) == "7"


def test_the_table_of_evaluations_takes_the_percentile_that_n_carries() -> None:
    record = recorded(ABOVE_ITS_TARGET)
    columns = {heading: path for heading, path, _ in evaluation_columns("WER", record.lines)}
    assert columns["turn p50, ms"] == "voice_turn_ms.p50"
    many = [replace(line, metrics={**line.metrics, "voice_turn_ms": {**line.metrics["voice_turn_ms"], "n": 20}}) for line in record.lines]
    assert "turn p95, ms" in {heading for heading, _, _ in evaluation_columns("WER", many)}
    assert cell(many[0], "voice_turn_ms.p95", 0).endswith(" (n=20)")


def test_a_picture_of_few_turns_has_no_p95_and_says_so() -> None:
    record = recorded(ABOVE_ITS_TARGET)
    few = pictures(report_data(record), None, None)["latency"]
    assert few.words.endswith("Some have only 3 voice turns: p95 is drawn from 20 on, and p99 from 100 on.")
    assert few.figure is not None
    bars, ticks = few.figure.data[::2], few.figure.data[1::2]
    assert all(set(bar.error_x.array) == {0.0} and None not in bar.x for bar in bars), "medians alone"
    assert all(set(tick.x) == {None} for tick in ticks)
    many = tuple(replace(line, metrics={**line.metrics, "voice_turn_ms": {**line.metrics["voice_turn_ms"], "n": 20}}) for line in record.lines)
    enough = pictures(report_data(replace(record, lines=many)), None, None)["latency"]
    assert "voice turns" not in enough.words
    assert enough.figure is not None
    assert any(max(bar.error_x.array) > 0.0 for bar in enough.figure.data[::2])


def test_the_metrics_say_which_evaluation_they_come_from() -> None:
    data = report_data(recorded(ABOVE_ITS_TARGET))
    assert data.rows_of == "Measured in the winner's last of 2 evaluations (g4-c0) and the baseline's last of 2 evaluations (g1-c0)."
    assert data.rows_of in html.unescape(as_html(data))


def test_knobs_are_drawn_only_if_the_forest_predicts() -> None:
    fits, noise = read_run(ARTIFACTS, WHOLE), read_run(ARTIFACTS, RUN)
    assert pictures(report_data(fits), None, None)["importance"].figure is not None
    not_shown = pictures(report_data(noise), None, None)["importance"]
    assert not_shown.figure is None
    assert not_shown.words.startswith("Not shown: the forest does not predict evaluations that it has not seen (R² -0.56 out of bag, at least 0.2 is needed)")
    assert "plot-importance" not in as_html(report_data(noise))
    assert not_shown.words in as_markdown(report_data(noise)).replace("\\", "")


def test_what_violates_a_constraint_is_counted_as_such_everywhere() -> None:
    record = recorded(OFF_ITS_FRONT)
    against = next(line for line in record.lines if line.violations)
    data = report_data(record)
    assert [(outcome, count) for outcome, count, _ in data.counts] == [("ok", 5), ("against a constraint", 1)]
    assert data.failures[0]["kind"] == "against a constraint: max_failed_requests_pct"
    shown = io.StringIO()
    console = Console(file=shown, width=300, height=60)
    with Progress(console, 6, [], quiet=False) as progress:
        for line in record.lines:
            progress.ended(line)
    assert f"{against.candidate_id} against a constraint: max_failed_requests_pct [" in shown.getvalue()
    console.print(make_progress_table(console, record.lines, [], [], evidence_of(record.lines), total=6, elapsed_s=1.0, left_s=None))
    assert "6 of 6 evaluations (5 ok, 1 against a constraint)" in shown.getvalue()
    assert describe_run(record.folder, record)["n_measured"] == 5


def test_a_sentence_about_one_percentile_does_not_hide_another() -> None:
    verdict = report_data(recorded(OFF_ITS_FRONT)).verdict
    assert verdict.endswith("Winner shows no difference in speed at p95 (-22 … +253 %), transcribes no worse, serves as many callers, "
                            "but its voice turn at the median is 90 % worse.")  # fmt: skip


def test_no_sessions_are_explained_where_they_stand() -> None:
    record = recorded(ABOVE_ITS_TARGET)
    none = next(line for line in record.lines if line.metrics["concurrent_capacity"] == 0)
    assert "sessions 0 (one alone misses a latency target), " in describe_measured(none.metrics)
    assert record.summary is not None
    assert record.summary.best is not None
    without = [replace(line, metrics={**line.metrics, "concurrent_capacity": 0}) for line in record.lines]
    rows = {row.label: row.winner_text for row in report_data(replace(record, lines=tuple(without))).rows}
    assert rows["simultaneous sessions within the targets"] == "0 (one alone misses a latency target)"


def test_it_is_said_if_the_baseline_is_not_among_the_tied() -> None:
    record = recorded(ABOVE_ITS_TARGET)
    assert record.summary is not None
    assert record.summary.baseline is not None
    worse = [replace(line, fitness=0.1) if line.params == record.summary.baseline.params else line for line in record.lines]
    caveats = " ".join(report_data(replace(record, lines=tuple(worse))).caveats)
    assert "the baseline not among them" in caveats


def test_an_error_rate_says_how_many_words_it_rests_on() -> None:
    record = recorded(ABOVE_ITS_TARGET)
    known = tuple(replace(line, metrics={**line.metrics, "n_words": 21, "n_clips": 3}) for line in record.lines)
    data = report_data(replace(record, lines=known))
    assert {row.label: row.winner_text for row in data.rows}["word error rate"] == "0.1684 (21 words, 3 clips)"
    assert "The winner's error rate rests on 21 words: 299 are needed to show that it differs by no more than 0.01, its tolerance." in data.caveats
    enough = tuple(replace(line, metrics={**line.metrics, "n_words": 299, "n_clips": 30}) for line in record.lines)
    assert not [caveat for caveat in report_data(replace(record, lines=enough)).caveats if "error rate" in caveat]
