"""What is on disk is whole, whatever happened."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.artifacts import run_folder as artifacts
from tune_gpu.artifacts.manifest import manifest
from tune_gpu.artifacts.reading import read_winner
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.artifacts.run_folder import RunFolder, write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.search.evaluations import Candidate


def line(candidate_id: str, generation: int, **change: Any) -> EvaluationRecord:
    content = {
        "candidate_id": candidate_id,
        "generation": generation,
        "origin": "initial",
        "params": {},
        "status": "ok",
        "fitness": 0.5,
        "fitness_stderr": 0.1,
        "n_windows": 2,
        "violation": 0.0,
        "transient": False,
        "failure": None,
        "metrics": {},
        "duration_s": {},
        "engine_reused": False,
    }
    return EvaluationRecord.parse(content | change, candidate_id)


WINNER = WinnerFile(run_id="r", best_params={}, best_metrics={}, confirmed=False)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path, "experiment", "run-1")
    folder.create("name: experiment\n")
    return folder


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(folder: RunFolder, tmp_path: Path) -> None:
    for experiment in ("experiment", "other"):
        RunFolder(tmp_path, experiment, "run-1").create("name: experiment\n")
    assert {path.parent.name: path.parent.parent.name for path in tmp_path.glob("*/*/config.yaml")} == {
        "run-1": "experiment", "run-1-2": "experiment", "run-1-3": "other",
    }


def test_a_run_that_somebody_is_at_is_not_gone_on_with_by_another(folder: RunFolder, tmp_path: Path) -> None:
    other = RunFolder.find(tmp_path, "run-1")
    with folder.held(), pytest.raises(UserError, match="run-1: another process is using it"), other.held():
        pass
    with other.held():
        assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml"]


def test_a_manifest_keeps_what_the_one_before_it_said(folder: RunFolder) -> None:
    here = DeviceRecord.parse({"kind": "cpu"}, "the device")
    first = replace(manifest("run-1", 0, here, folder.earlier_manifests()), started_at="2026-01-01T00:00:00+00:00", argv=("first",))
    assert first.resumed_at is None
    again = first
    for n_resumed in (1, 2):
        folder.write_json("manifest.json", again)
        again = manifest("run-1", 0, here, folder.earlier_manifests())
        assert again.started_at == first.started_at
        assert again.resumed_at is not None
        assert [each.argv for each in again.resumed_from] == [("first",), tuple(sys.argv)][:n_resumed]
        assert not any("resumed_from" in each for each in again.dump()["resumed_from"])


def test_lines_come_back_in_the_order_of_their_generations(folder: RunFolder) -> None:
    for generation in (10, 2, 0):
        folder.append_candidate(line(f"g{generation}-c0", generation))
    assert [found.generation for found in folder.candidates()] == [0, 2, 10]


def test_an_unfinished_last_proposal_is_cut_off_before_the_next(folder: RunFolder) -> None:
    folder.append_proposal(Candidate("g0-c0", 0, "initial", {}, 1))
    with (folder.path / "proposals.jsonl").open("a") as file:
        file.write('{"candidate_id": "g0-')
    assert folder.proposals() == {"g0-c0": 1}
    folder.append_proposal(Candidate("g0-c1", 0, "initial", {}, 2))
    assert folder.proposals() == {"g0-c0": 1, "g0-c1": 2}


def test_half_of_a_last_line_is_cut_off_and_the_next_line_is_whole(folder: RunFolder) -> None:
    folder.append_candidate(line("g0-c0", 0))
    path = folder.path / "gen_0_candidates.jsonl"
    with path.open("ab") as file:
        file.write(b'{"candidate_id": "g0-c1", "gener')
    assert [found.candidate_id for found in folder.candidates()] == ["g0-c0"]
    folder.append_candidate(line("g0-c1", 0))
    assert [found.candidate_id for found in folder.candidates()] == ["g0-c0", "g0-c1"]


def test_a_line_that_is_no_candidate_is_named(folder: RunFolder) -> None:
    (folder.path / "gen_0_candidates.jsonl").write_text("not json\n")
    with pytest.raises(UserError, match=r"gen_0_candidates\.jsonl, line 1"):
        list(folder.candidates())


def test_nan_and_infinity_are_absent_numbers(folder: RunFolder) -> None:
    folder.append_candidate(line("g0-c0", 0, metrics={"x": float("nan"), "y": [float("inf"), 1.0]}))
    text = (folder.path / "gen_0_candidates.jsonl").read_text()
    assert json.loads(text)["metrics"] == {"x": None, "y": [None, 1.0]}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udcff")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path / 'summary.json'}'")):
        write_whole(tmp_path / "summary.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_what_a_line_says_to_the_search() -> None:
    assert line("a", 0).result().fitness == 0.5
    failed = line("a", 0, status="failed", failure={"kind": "oom"}, fitness=None, violation=3.0, transient=True).result()
    assert (failed.status, failed.fitness, failed.violation, failed.transient) == ("failed", None, 3.0, True)
    assert line("a", 0, fitness=None, violation=0.2).result().status == "infeasible"


def test_an_unknown_run_names_those_there_are(folder: RunFolder, tmp_path: Path) -> None:
    assert RunFolder.find(tmp_path, "run-1").path == folder.path
    with pytest.raises(UserError, match=r"no such run .*run-1"):
        RunFolder.find(tmp_path, "run-2")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_in_one_line(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder.held():
        [record] = caplog.records
    assert "this file system has no locks" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_run_is_locked_before_anybody_can_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def write(path: Path, content: str) -> None:
        with pytest.raises(UserError, match="no such run"):
            RunFolder.find(tmp_path, "run-1")
        path.write_text(content)
        with pytest.raises(UserError, match="another process is using it"), RunFolder.find(tmp_path, "run-1").held():
            pass
        seen.append(path.name)

    monkeypatch.setattr(artifacts, "write_whole", write)
    with RunFolder(tmp_path, "e", "run-1").created("name: e\n"):
        assert seen == ["config.yaml"]


_ONE_SECOND = """
import sys
from dataclasses import replace
from pathlib import Path
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
root, role, experiment = sys.argv[1:]
print("up", flush=True)
sys.stdin.readline()
if role == "launch":
    run = RunFolder(root, experiment, "run-1")
    with run.created("name: e\\n"):
        print("holds", run.run_id, flush=True)
        sys.stdin.readline()
else:
    while True:
        for path in Path(root).glob("*/*/config.yaml"):
            try:
                with RunFolder.find(root, path.parent.name).held():
                    print("holds", path.parent.name, flush=True)
                    sys.stdin.readline()
            except UserError:
                print("refused", flush=True)
            sys.exit()
"""


def test_of_all_that_begin_in_one_second_exactly_one_gets_a_run(tmp_path: Path) -> None:
    roles = [("launch", "one"), ("launch", "one"), ("launch", "two"), ("resume", "-"), ("resume", "-")]
    commands = [[sys.executable, "-c", _ONE_SECOND, str(tmp_path), *role] for role in roles]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        assert [process.stdout.readline() for process in running if process.stdout] == ["up\n"] * len(running)
        for process in running:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = [process.stdout.readline().strip() for process in running if process.stdout]
    finally:
        for process in running:
            process.communicate("end\n", timeout=20)
    held = [line for line in printed if line.startswith("holds")]
    assert len(held) == len(set(held)) == 3, printed
    assert printed[3:] == ["refused"] * 2, "each launch holds a run of its own before it can be found"


@pytest.mark.parametrize("name", ["proposals.jsonl", "gen_0_candidates.jsonl"])
def test_a_line_of_a_run_follows_no_link_out_of_its_folder(name: str, folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / name).symlink_to(tmp_path / ".bash_aliases")
    with pytest.raises(OSError, match="symbolic link"):
        folder.append_proposal(Candidate("g0-c1", 0, "initial", {}, 1)) if name == "proposals.jsonl" else folder.append_candidate(line("g0-c1", 0))
    assert not (tmp_path / ".bash_aliases").exists()


@pytest.mark.parametrize("name", ["comparison.jsonl", "ray", "ray/attempt-2"])
def test_a_run_with_a_link_in_its_folder_is_not_gone_on_with(name: str, folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name}: a symbolic link"), folder.held():
        pytest.fail("it was begun")


@pytest.mark.parametrize("linked", ["winners", "winners/{}.json"])
def test_winner_file_behind_a_link_is_not_begun_written_or_read(linked: str, folder: RunFolder, tmp_path: Path) -> None:
    """A folder of artifacts may come from somebody else, whose link would have the winner written to, or read from, another place."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "winners").mkdir(parents=True)
    link = folder.root / linked.format(folder.experiment)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere / "winners" if linked == "winners" else elsewhere / "file.json")
    for use in (lambda: folder.held().__enter__(), lambda: folder.write_winner(WINNER), lambda: read_winner(folder)):
        with pytest.raises(UserError, match=f"{link.name}: a symbolic link"):
            use()
    assert [path.name for path in elsewhere.rglob("*")] == ["winners"], "nothing was written there"


def test_winner_file_of_a_link_to_the_artifacts_themselves_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "disk")
    assert RunFolder(tmp_path / "artifacts", "e", "r").write_winner(WINNER).is_file()
