"""`tune-gpu status`: which runs there are and how to go on."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tests.support.runs import INTERRUPTED, RUN, copy_to, edit
from tune_gpu.cli.main import main


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["status", *arguments])
    return ended.exit_code, ended.output


def test_where_there_is_no_run_it_says_how_to_begin_one(tmp_path: Path) -> None:
    assert run(f"run.artifacts_dir={tmp_path}") == (0, f"no runs in {tmp_path}. Start one with: python -m tune_gpu.launch\n")


def test_finished_interrupted_and_broken_runs_are_told_apart(tmp_path: Path) -> None:
    copy_to(tmp_path, "20200101-000000")
    edit(tmp_path / "spica_gpu_allocation" / "20200101-000000" / "summary.json", lambda c: c.update(ended="interrupted", run_id="20200101-000000"))
    edit(tmp_path / "spica_gpu_allocation" / "20200101-000000" / "manifest.json", lambda c: c.update(run_id="20200101-000000"))
    copy_to(tmp_path, "20200202-000000")  # a copy of another run's files under a name of its own
    copy_to(tmp_path)
    code, text = run(f"run.artifacts_dir={tmp_path}", "--json")
    assert code == 0
    interrupted, broken, finished, recorded = json.loads(text)
    assert (recorded["run_id"], recorded["state"]) == (INTERRUPTED, "interrupted")
    assert (interrupted["state"], broken["state"], finished["state"]) == ("interrupted", "broken", "finished")
    assert interrupted["resume"] == f"python -m tune_gpu.launch --resume 20200101-000000 run.artifacts_dir={tmp_path}"
    assert interrupted["fitness"] is None
    assert "it belongs to run" in broken["error"]
    assert finished["run_id"] == RUN
    assert finished["fitness"] > 0
    assert finished["n_measured"] < finished["n_evaluations"], "the recorded run has a failure"

    code, text = run(f"run.artifacts_dir={tmp_path}")
    assert code == 0
    assert f"20200101-000000 is interrupted; resume with: {interrupted['resume']}" in text
    assert "20200202-000000 is broken: " in text


def test_a_finished_run_comes_with_its_decision(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    decision = {"verdict": "measure longer", "reason": "it was not compared.", "command": f"tune-gpu compare {RUN}"}
    edit(folder / "summary.json", lambda content: content.update(decision=decision))
    _, text = run(f"run.artifacts_dir={tmp_path}", "--json")
    rows = {row["run_id"]: row["decision"] for row in json.loads(text)}
    assert rows[RUN] == decision
    assert rows[INTERRUPTED] is None
    _, text = run(f"run.artifacts_dir={tmp_path}")
    assert f"{RUN}: measure longer; next: tune-gpu compare {RUN}\n" in text


def test_another_override_is_bad_input() -> None:
    code, text = run("search.seed=1")
    assert code == 2
    assert text == "error: search.seed: not known here. Use run.artifacts_dir=DIR only.\n"
