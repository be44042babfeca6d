"""What a person sees while a run goes on, on a terminal and elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.runs import ARTIFACTS, RUN
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.evaluation import Durations, EvaluationRecord, FailureRecord
from tune_gpu.cli import progress as live
from tune_gpu.cli.progress import Progress, describe_measured, describe_percentiles, describe_starts
from tune_gpu.cli.progress_table import engine_of, fitness_of, make_progress_table, spread
from tune_gpu.common.failures import Status
from tune_gpu.common.metric import Protocol, carries, shown_percentiles
from tune_gpu.metrics import VOICE_TURN, catalogue_of
from tune_gpu.search.tournament import Candidate

LINES = read_run(ARTIFACTS, RUN).lines
NAMES = list(LINES[0].params)
EVIDENCE = evidence_of(LINES)
NEXT = Candidate("g9-c0", 9, "fresh", dict(LINES[0].params))


def shown(width: int, height: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(make_progress_table(console, LINES, [NEXT], NAMES, EVIDENCE, total=40, elapsed_s=61.0, left_s=90.0))
    return console.file.getvalue()  # type: ignore[attr-defined]


def plain(**options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    with Progress(console, 40, NAMES, **options) as progress:
        for line in LINES:
            progress.began(Candidate(line.candidate_id, line.generation, line.origin, line.params))
            progress.ended(line)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [90, 120, 170, 240])
def test_the_table_fits_the_terminal_and_names_what_matters(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    for wanted in ("generation 9", f"{len(LINES)} of 40 evaluations", "61 s", "about 90 s left", "running", "reused", "started"):
        assert wanted in text
    for line in LINES:
        assert line.candidate_id in text
        assert line.fitness is None or fitness_of(line, EVIDENCE) in text
    assert all(name in text for name in NAMES) is (width >= 240), "where there is room, each knob has a column"


def test_an_engine_that_was_never_come_to_is_not_called_started() -> None:
    def ended(reused: bool, **parts: float) -> EvaluationRecord:
        return replace(LINES[0], engine_reused=reused, duration_s=Durations(start_by_part=parts))

    found = [ended(False, whisper=1.0, vllm=40.0), ended(True, whisper=1.0, vllm=0.0), ended(False, whisper=1.0), ended(False)]
    assert [engine_of(line) for line in found] == ["started", "reused", "-", "-"]
    assert engine_of(replace(LINES[0], engine_reused=False, duration_s=Durations(start=4.0))) == "started", "a line without its parts"


def test_a_space_of_named_services_names_those_that_started() -> None:
    llms = catalogue_of({"chat": Protocol.CHAT, "draft": Protocol.CHAT})
    one, none = (replace(LINES[0], duration_s=Durations(start_by_part={"memory_stable": 0.3, "chat": seconds, "draft": 0.0})) for seconds in (4.0, 0.0))
    assert [describe_starts(line, llms) for line in (one, none)] == ["started chat", "no service started anew"]
    assert describe_starts(replace(LINES[0], engine_reused=True)) == "engine reused"


def test_the_fitness_has_its_uncertainty_where_it_is_known() -> None:
    one, unknown = replace(LINES[0], fitness=0.5, fitness_stderr=0.0123), replace(LINES[0], fitness=0.5, fitness_stderr=None)
    assert fitness_of(unknown, evidence_of([unknown])) == "0.5000"
    repeats = evidence_of([replace(one, fitness=fitness, fitness_stderr=0.0) for fitness in (0.48, 0.5, 0.52)])
    assert fitness_of(one, repeats) == "0.5000 ± 0.0235", "0.0123 within it, 0.02 from one deployment to the next"


def test_on_a_low_terminal_the_latest_evaluations_stay_in_sight() -> None:
    text = shown(170, height=12)
    assert LINES[-1].candidate_id in text
    assert LINES[0].candidate_id not in text
    assert f"{len(LINES) - 4} earlier evaluations are in the run's folder" in text


def test_without_a_terminal_each_evaluation_is_two_plain_lines() -> None:
    lines = plain()
    assert len(lines) == 2 * len(LINES)
    assert not any("\x1b" in line for line in lines)
    failed = next(line for line in LINES if line.failure)
    assert any(failed.failure and failed.failure.kind in line and failed.failure.message in line for line in lines)


def test_quiet_is_silent_and_verbose_prints_times_and_log_facts() -> None:
    assert plain(quiet=True) == []
    assert plain(quiet=True, verbose=True) == []
    text = "\n".join(plain(verbose=True))
    measured = next(line for line in LINES if line.fitness is not None)
    assert f"{measured.candidate_id}: start {measured.duration_s.start:.1f} s (" in text
    assert f"KV cache of {measured.engine.kv_cache_tokens} tokens" in text
    for line in LINES:
        if line.failure and line.failure.evidence:
            assert line.failure.evidence in text


@pytest.mark.parametrize("terminal", [False, True])
def test_why_a_candidate_failed_is_printed_without_asking(terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=100, height=60, force_terminal=terminal)
    failure = FailureRecord(kind="startup_crash", message="ended with exit code 2 while starting", evidence="error: unrecognized arguments:\n --foo")
    failed = replace(LINES[0], candidate_id="g9-c0", status=Status.FAILED, fitness=None, failure=failure, metrics={})
    with Progress(console, 40, NAMES) as progress:
        progress.ended(failed)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "g9-c0 failed: startup_crash, ended with exit code 2 while starting: error: unrecognized arguments: --foo" in text


def test_all_that_run_side_by_side_are_shown_until_each_has_ended() -> None:
    """A cluster's run measures as many at once as there are cards."""
    console = Console(file=io.StringIO(), width=240, height=60, force_terminal=True)
    with Progress(console, 40, NAMES) as progress:
        for number in range(3):
            progress.began(replace(NEXT, candidate_id=f"g9-c{number}"))
        progress.ended(replace(LINES[0], candidate_id="g9-c1"))
        console.print(progress._table())
        shown = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [line for line in shown[shown.rindex("generation 9") :].splitlines() if "running" in line]
    assert ["g9-c0" in rows[0], "g9-c2" in rows[1]] == [True, True], rows
    low = Console(file=io.StringIO(), width=240, height=12)
    low.print(make_progress_table(low, LINES, [replace(NEXT, candidate_id=f"g9-c{number}") for number in range(9)], NAMES, EVIDENCE, total=40, elapsed_s=61.0, left_s=None))
    assert len(low.file.getvalue().splitlines()) <= 13, "no higher than the terminal"  # type: ignore[attr-defined]


def test_the_time_that_is_left_is_of_all_that_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now.s))
    with Progress(Console(file=io.StringIO()), 13, NAMES) as progress:
        progress.ended(LINES[0], replayed=True)
        assert progress.time_left_s() is None
        now.s += 500.0  # it waited for cards
        for number in range(4):
            progress.began(replace(NEXT, candidate_id=f"g9-c{number}"))
        now.s += 60.0
        for number in range(4):
            progress.ended(replace(LINES[0], candidate_id=f"g9-c{number}", wall_s=60.0))
        assert progress.time_left_s() == pytest.approx(120.0), "eight more, four at once"


def test_a_rate_of_characters_is_called_cer() -> None:
    """In the plain line and in the table; lines from before the unit was recorded count words."""
    line = next(line for line in LINES if line.fitness is not None)
    of_characters = replace(line, metrics={**line.metrics, "wer_unit": "character"})
    for shown_line, name in ((line, "wer"), (of_characters, "cer")):
        console = Console(file=io.StringIO(), width=300)
        with Progress(console, 40, NAMES) as progress:
            progress.ended(shown_line)
        console.print(make_progress_table(console, [shown_line], [], NAMES, EVIDENCE, total=40, elapsed_s=1.0, left_s=None))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert f", {name} {line.metrics['wer']}, " in text
        assert f" {name} " in text.split(", engine")[-1]


def with_samples(*counts: int | None) -> list[EvaluationRecord]:
    """The measured recorded lines, as if each had this number of samples; None for a line of a program that did not count them."""
    lines = [line for line in LINES if line.fitness is not None]
    many = ("stt_latency_ms", "llm_latency_ms", "voice_turn_ms")
    return [replace(line, metrics={**line.metrics, **{name: {**line.metrics[name], "n": n} for name in many}}) for line, n in zip(lines, counts, strict=False)]


def test_three_samples_are_printed_with_their_n_and_without_a_p95() -> None:
    """A recorded run printed "stt p50/p95 1597 / 2027 ms" of three turns."""
    [few] = with_samples(3)
    stt, p95 = few.metrics["stt_latency_ms"]["p50"], few.metrics["stt_latency_ms"]["p95"]
    assert describe_measured(few.metrics).startswith(f"stt p50 {stt:.0f} ms (n=3), llm p50 ")
    assert f"{p95:.0f}" not in describe_measured(few.metrics)
    [enough] = with_samples(20)
    assert describe_measured(enough.metrics).startswith(f"stt p50/p95 {stt:.0f} / {p95:.0f} ms (n=20), llm p50/p95 ")
    [uncounted] = with_samples(None)
    assert describe_measured(uncounted.metrics).startswith(f"stt p50/p95 {stt:.0f} / {p95:.0f} ms, llm p50/p95 ")
    [one] = with_samples(1)
    assert describe_measured(one.metrics).startswith("stt n=1: too few for a median, ")


def test_the_live_table_has_n_and_only_percentiles_that_n_carries() -> None:
    def table(*counts: int) -> str:
        lines, console = with_samples(*counts), Console(file=io.StringIO(), width=400, height=60)
        console.print(make_progress_table(console, lines, [NEXT], NAMES, evidence_of(lines), total=9, elapsed_s=1.0, left_s=None))
        return console.file.getvalue()  # type: ignore[attr-defined]

    few, mixed = table(3, 4), table(3, 20)
    assert few.count("p50 (n)") == 3
    assert "p95" not in few
    assert mixed.count("p50 / p95 (n)") == 3
    first, second = with_samples(3, 20)
    assert f"{first.metrics['voice_turn_ms']['p50']:.0f} / - (3)" in mixed
    assert f"{second.metrics['voice_turn_ms']['p50']:.0f} / {second.metrics['voice_turn_ms']['p95']:.0f} (20)" in mixed


@given(st.integers(1, 300))
def test_what_is_printed_of_n_samples_is_what_they_carry(n: int) -> None:
    values = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "mean": 50.0, "n": n}
    metrics = {VOICE_TURN.name: values}
    shown = shown_percentiles(n)
    assert all(carries(n, at) for at in shown)
    assert shown == {n >= 20: ("p50", "p95"), 10 <= n < 20: ("p50", "p90"), 2 <= n < 10: ("p50",), n < 2: ()}[True]
    text = describe_percentiles(metrics, VOICE_TURN)
    assert f"n={n}" in text
    assert [f"{values[at]:.0f}" in text.partition("(")[0] for at in shown] == [True] * len(shown)
    cell = spread(metrics, VOICE_TURN, 0, ("p50", "p95"))
    assert cell.endswith(f" ({n})")
    assert ("95" in cell.partition("(")[0]) == carries(n, "p95")
