"""What a person sees while a run goes on, on a terminal and elsewhere."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.runs import ARTIFACTS, RUN
from tune_gpu.live import Progress
from tune_gpu.live_table import engine_of, fitness_of, table_of
from tune_gpu.report.reading import read_run
from tune_gpu.tournament import Candidate

LINES = read_run(ARTIFACTS, RUN).lines
NAMES = list(LINES[0]["params"])
NEXT = Candidate("g9-c0", 9, "fresh", dict(LINES[0]["params"]))


def shown(width: int, height: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(table_of(console, LINES, NEXT, NAMES, total=40, elapsed_s=61.0, left_s=90.0))
    return console.file.getvalue()  # type: ignore[attr-defined]


def plain(**options: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    with Progress(console, 40, NAMES, **options) as progress:
        for line in LINES:
            progress.began(Candidate(line["candidate_id"], line["generation"], line["origin"], line["params"]))
            progress.ended(line)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [90, 120, 170, 240])
def test_the_table_fits_the_terminal_and_names_what_matters(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    for wanted in ("generation 9", f"{len(LINES)} of 40 evaluations", "61 s", "about 90 s left", "running", "re-used", "started"):
        assert wanted in text
    for line in LINES:
        assert line["candidate_id"] in text
        assert line["fitness"] is None or fitness_of(line) in text
    assert all(name in text for name in NAMES) is (width >= 240), "where there is room, each knob has a column"


def test_an_engine_that_was_never_come_to_is_not_called_started() -> None:
    def ended(reused: bool, **parts: float) -> dict[str, Any]:
        return {"engine_reused": reused, "duration_s": {"start": 0.0, "start_by_part": parts}}

    found = [ended(False, whisper=1.0, vllm=40.0), ended(True, whisper=1.0, vllm=0.0), ended(False, whisper=1.0), ended(False)]
    assert [engine_of(line) for line in found] == ["started", "re-used", "-", "-"]
    assert engine_of({"engine_reused": False, "duration_s": {"start": 4.0}}) == "started", "a line without its parts"


def test_the_fitness_has_its_uncertainty_where_it_is_known() -> None:
    assert fitness_of({"fitness": 0.5, "fitness_stderr": 0.0123}) == "0.5000 ± 0.0123"
    assert fitness_of({"fitness": 0.5, "fitness_stderr": None}) == "0.5000"


def test_on_a_low_terminal_the_latest_evaluations_stay_in_sight() -> None:
    text = shown(170, height=12)
    assert LINES[-1]["candidate_id"] in text
    assert LINES[0]["candidate_id"] not in text
    assert f"{len(LINES) - 4} earlier ones are in the run's folder" in text


def test_elsewhere_than_on_a_terminal_there_are_two_plain_lines_an_evaluation() -> None:
    lines = plain()
    assert len(lines) == 2 * len(LINES)
    assert not any("\x1b" in line for line in lines)
    failed = next(line for line in LINES if line["failure"])
    assert any(failed["failure"]["kind"] in line and failed["failure"]["message"] in line for line in lines)


def test_quiet_is_silent_and_verbose_says_where_the_seconds_went_and_what_the_log_said() -> None:
    assert plain(quiet=True) == []
    assert plain(quiet=True, verbose=True) == []
    text = "\n".join(plain(verbose=True))
    measured = next(line for line in LINES if line["fitness"] is not None)
    assert f"{measured['candidate_id']}: start {measured['duration_s']['start']:.1f} s (" in text
    assert f"KV cache of {measured['engine']['kv_cache_tokens']} tokens" in text
    for line in LINES:
        if line["failure"] and line["failure"]["evidence"]:
            assert line["failure"]["evidence"] in text
