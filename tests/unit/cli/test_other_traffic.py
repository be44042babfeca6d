"""Results of another traffic are refused by `compare` and `--resume`; artifacts without a hash are accepted, and a line says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from tests.support.made_run import RUN_ID, made_run
from tests.unit.compare.test_labels import measured  # noqa: F401
from tune_gpu.artifacts.finished_run import read_finished_run
from tune_gpu.artifacts.records.manifest import Manifest
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.main import main
from tune_gpu.compare.same_traffic import check_unchanged
from tune_gpu.workload.traffic_hash import planned_hash

OTHER = "0123456789abcdef"


def stated(folder: RunFolder, traffic: str | None, *, ended: bool = True) -> RunFolder:
    """Write the hash into the run's manifest, and leave the run unfinished if it is to be resumed."""
    path = folder.path / "manifest.json"
    record = replace(Manifest.parse(json.loads(path.read_text()), path), traffic=traffic)
    folder.write_json("manifest.json", record if ended else replace(record, ended_at=None))
    if not ended:
        (folder.path / "summary.json").unlink()
    return folder


def compare(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", RUN_ID, *arguments, f"run.artifacts_dir={root}", "confirm.metric=voice_turn_ms.p50"])


def test_compare_refuses_a_run_whose_traffic_has_changed(tmp_path: Path) -> None:
    stated(made_run(tmp_path), OTHER)
    done = compare(tmp_path)
    assert done.exit_code == 2
    assert f"error: compare {RUN_ID}: the run was measured under the traffic {OTHER}, and its configuration now plans " in done.output
    assert done.output.count("\n") == 1


def test_compare_accepts_the_same_traffic_and_states_it(tmp_path: Path, measured: None) -> None:  # noqa: F811
    planned = planned_hash(read_finished_run(str(tmp_path), made_run(tmp_path).run_id, [], "compare").config)
    folder = stated(RunFolder.find(tmp_path, RUN_ID), planned)
    done = compare(tmp_path)
    assert done.exit_code == 0, done.output
    assert "does not state its traffic" not in done.output
    assert json.loads((folder.path / "comparison.json").read_text())["traffic"] == planned


def test_a_run_without_a_hash_is_accepted_and_a_line_says_so(tmp_path: Path, measured: None) -> None:  # noqa: F811
    made_run(tmp_path)
    done = compare(tmp_path)
    assert done.exit_code == 0, done.output
    assert f"compare {RUN_ID}: the run does not state its traffic (an older program measured it)" in " ".join(done.output.split())


def test_against_refuses_a_run_of_another_traffic(tmp_path: Path, measured: None) -> None:  # noqa: F811
    planned = planned_hash(read_finished_run(str(tmp_path), made_run(tmp_path).run_id, [], "compare").config)
    stated(RunFolder.find(tmp_path, RUN_ID), planned)
    stated(made_run(tmp_path, run_id="20260130-090000"), OTHER)
    done = compare(tmp_path, "--against", "20260130-090000")
    assert done.exit_code == 2
    assert f"--against 20260130-090000: it was measured under the traffic {OTHER}, {RUN_ID} under {planned}" in done.output


def test_resume_refuses_a_run_whose_traffic_has_changed(tmp_path: Path) -> None:
    stated(made_run(tmp_path), OTHER, ended=False)
    done = CliRunner().invoke(main, ["launch", "--resume", RUN_ID, f"run.artifacts_dir={tmp_path}"])
    assert done.exit_code == 2, done.output
    assert f"error: --resume {RUN_ID}: the run was measured under the traffic {OTHER}" in done.output


def test_sources_that_are_elsewhere_are_said_to_be_unchecked() -> None:
    assert "not checked" in (check_unchanged("compare x", OTHER, None) or "")
    assert check_unchanged("compare x", OTHER, OTHER) is None
