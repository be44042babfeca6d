"""What is read from a run's folder is whole, ours and this run's, or it is one clear line."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import ARTIFACTS, EXPERIMENT, INTERRUPTED, RUN, copy_to, edit
from tune_gpu.artifacts.reading import RunState, all_runs, decided, read_run, read_winner, resume_command
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import start_ticks


def test_a_run_is_found_by_its_id_and_by_its_folder() -> None:
    by_id, by_path = read_run(ARTIFACTS, RUN), read_run("nowhere", str(ARTIFACTS / EXPERIMENT / RUN))
    assert (by_id.folder.path, by_id.lines, by_id.summary) == (by_path.folder.path, by_path.lines, by_path.summary)
    assert by_id.state is RunState.FINISHED
    assert by_id.summary is not None
    assert len(by_id.lines) == by_id.summary.n_evaluations
    assert decided(by_id)


def test_a_run_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UserError, match=f"20200101-000000: no such run in .*{RUN}"):
        read_run(ARTIFACTS, "20200101-000000")


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def _without_best(path: Path) -> None:
    edit(path, lambda content: content.pop("best"))


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("summary.json", _cut, r"summary\.json: not a whole JSON file"),
        ("manifest.json", _cut, r"manifest\.json: not a whole JSON file"),
        ("summary.json", lambda path: path.write_text("[]"), r"summary\.json: not written by this program \(a JSON list"),
        ("summary.json", _without_best, r"summary\.json: not written by this program \(`best` is missing\)"),
        ("summary.json", lambda path: edit(path, lambda c: c.update(best={"x": 1})), r"`best\.params` is missing"),
        ("summary.json", lambda path: edit(path, lambda c: c.update(n_evaluations="many")), r"`n_evaluations` is \"many\""),
        ("summary.json", lambda path: edit(path, lambda c: c.update(schema_version=2)), r"schema_version=2: this program reads up to 1"),
        ("summary.json", lambda path: edit(path, lambda c: c.update(run_id="other")), r"it belongs to run other, not to " + RUN),
        ("config.yaml", lambda path: path.write_text("- a list"), r"config\.yaml: not a run's configuration"),
        ("config.yaml", lambda path: path.write_text("a: [1"), r"config\.yaml: not a run's configuration"),
        ("gen_0_candidates.jsonl", lambda path: path.write_text('{"candidate_id": "g0-c0"}\n'), r"gen_0_candidates\.jsonl, line 1: .*`generation` is missing"),
        ("gen_0_candidates.jsonl", lambda path: path.write_text("no json\n"), r"gen_0_candidates\.jsonl, line 1: not a candidate's line"),
        ("gen_0_candidates.jsonl", lambda path: (path.unlink(), path.mkdir()), r"gen_0_candidates\.jsonl: cannot be read"),
        ("gen_0_candidates.jsonl", lambda path: path.write_text("[" * 100_000 + "\n"), r"gen_0_candidates\.jsonl, line 1: not a candidate's line"),
        ("summary.json", lambda path: path.write_text("[" * 100_000), r"summary\.json: not a whole JSON file"),
        ("config.yaml", lambda path: path.write_text("[" * 10_000), r"config\.yaml: not a run's configuration"),
        ("plan.json", lambda path: path.write_text("{}"), r"plan\.json: not written by this program"),
    ],
)  # fmt: skip
def test_half_written_and_foreign_files_are_named_in_one_line(file: str, spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    spoil(copy_to(tmp_path) / file)
    with pytest.raises(UserError, match=message) as raised:
        read_run(tmp_path, RUN)
    assert "\n" not in str(raised.value)


def test_unknown_fields_are_no_error(tmp_path: Path) -> None:
    edit(copy_to(tmp_path) / "summary.json", lambda content: content.update(new_field={"of": "tomorrow"}))
    assert read_run(tmp_path, RUN).state is RunState.FINISHED


def test_reading_changes_nothing_even_where_half_a_line_is_being_written(tmp_path: Path) -> None:
    path = copy_to(tmp_path) / "gen_1_candidates.jsonl"
    whole = len(read_run(tmp_path, RUN).lines)
    with path.open("a") as file:
        file.write('{"candidate_id": "g1-c9", "gene')
    before = path.read_bytes()
    assert len(read_run(tmp_path, RUN).lines) == whole
    assert path.read_bytes() == before


def test_a_run_is_running_while_its_process_lives_and_killed_afterwards(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    me = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "host": socket.gethostname()}
    edit(folder / "manifest.json", lambda content: content.update(ended_at=None, process=me))
    record = read_run(tmp_path, RUN)
    assert record.state is RunState.RUNNING
    with pytest.raises(UserError, match=rf"still running \(process {os.getpid()} on "):
        decided(record)

    gone = subprocess.Popen(["true"])
    gone.wait()
    edit(folder / "manifest.json", lambda content: content["process"].update(pid=gone.pid))
    assert read_run(tmp_path, RUN).state is RunState.KILLED
    edit(folder / "manifest.json", lambda content: content["process"].update(me, start_ticks=1))
    assert read_run(tmp_path, RUN).state is RunState.KILLED, "the same process id, used again by another"


def test_an_interrupted_run_says_how_to_go_on_and_one_without_a_winner_why(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    edit(folder / "summary.json", lambda content: content.update(ended="interrupted"))
    with pytest.raises(UserError, match=rf"\(interrupted\)\. Resume it with: python -m tune_gpu\.launch --resume {RUN} run\.artifacts_dir="):
        decided(read_run(tmp_path, RUN))
    edit(folder / "summary.json", lambda content: content.update(ended="generations", best=None, failures={"startup_oom": 4}))
    with pytest.raises(UserError, match=r"it has no winner, because no configuration was feasible \(4 startup_oom\)"):
        decided(read_run(tmp_path, RUN))


def test_the_resume_command_can_be_pasted_for_any_folder_name() -> None:
    command = shlex.split(resume_command(RunFolder("/data/my runs; rm é", "e", "run-1")))
    assert command == ["python", "-m", "tune_gpu.launch", "--resume", "run-1", "run.artifacts_dir=/data/my runs; rm é"]


def test_a_winner_file_of_another_run_is_not_this_runs(tmp_path: Path) -> None:
    record = read_run(tmp_path, RUN) if copy_to(tmp_path) else None
    assert record is not None
    winner = read_winner(record.folder)
    assert winner is not None
    assert winner.best_params == decided(record)[1].params
    edit(tmp_path / "winners" / f"{EXPERIMENT}.json", lambda content: content.update(run_id="later"))
    assert read_winner(record.folder) is None


def test_runs_are_listed_oldest_first_also_beside_a_broken_one(tmp_path: Path) -> None:
    copy_to(tmp_path, "20200101-000000")
    copy_to(tmp_path)
    (tmp_path / EXPERIMENT / "20200101-000000" / "summary.json").write_text("{")
    found = list(all_runs(tmp_path))
    assert [folder.run_id for folder, _ in found] == ["20200101-000000", RUN, INTERRUPTED]
    assert isinstance(found[0][1], UserError)
    assert json.dumps(str(found[0][1]))
