"""`tune-gpu promote` as a person uses it: a promotion that was written and soaked is applied, falls short, is undone; exit codes tell which."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from tests.support.made_run import QUICK, RUN_ID, made_run
from tests.support.runs import edit
from tests.unit.promote.compared import replicates, write_comparison
from tests.unit.promote.test_apply import KEYS, SERVER, UNITS, free_ports
from tune_gpu.artifacts.finished_run import read_finished_run
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.redaction import REDACTED
from tune_gpu.cli.main import main
from tune_gpu.cli.promote import _write_verdict
from tune_gpu.experiment.checks import check_config
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.bundle import write_bundle
from tune_gpu.promote.evidence import evidence_of
from tune_gpu.promote.subject import subject_of
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.watch import Unhealthy, Watcher

BROKEN = "20260131-130000"


class Desk:
    """A folder of runs and a place to deploy to."""

    def __init__(self, root: Path) -> None:
        stt, llm = free_ports(2)
        self.root = root
        self.overrides = [
            f"run.artifacts_dir={root}",
            f"promote.install_dir={root / 'etc'}",
            "promote.target=process",
            "promote.device=cpu",
            "promote.neighbours_mib=0",
            "promote.probes=1",
            f"promote.whisper.url=http://127.0.0.1:{stt}",
            f"promote.vllm.url=http://127.0.0.1:{llm}",
            f"promote.whisper.command=[{sys.executable},{SERVER}]",
            f"promote.vllm.command=[{sys.executable},{SERVER}]",
        ]

    def written(self, run_id: str, *more: str) -> Path:
        """A promotion as it lies there after its soak."""
        write_comparison(made_run(self.root, run_id=run_id, overrides=[*QUICK, *more]))
        subject = subject_of(run_id, self.overrides, None, None, lambda _line: None, check_config)
        subject.folder.mkdir(parents=True)
        (subject.folder / "gate.json").write_text("{}")
        write_bundle(subject.folder, subject.bundle, subject.bundle, subject.about)
        return subject.folder

    def promote(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["promote", *arguments, *self.overrides])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    desk = Desk(tmp_path)
    yield desk
    for unit in UNITS:
        ProcessSupervisor(tmp_path / "etc" / "supervised").stop(unit)


def test_an_engine_that_runs_with_another_flag_exits_with_3(desk: Desk) -> None:
    desk.written(RUN_ID, """services.vllm.extra_args={little_prints: "non-default args: {'max_num_seqs': 8}"}""")
    fell = desk.promote(RUN_ID, "--apply")
    assert fell.exit_code == 3, fell.output
    assert "compare: ok (whisper, command line, environment, /health, not readable here: " in fell.output
    assert "rolled back: vllm runs with max_num_seqs=8, measured with 4 (start log)" in fell.output


def test_what_was_written_is_applied_and_undone(desk: Desk) -> None:
    desk.written(RUN_ID)
    applied = desk.promote(RUN_ID, "--apply")
    assert applied.exit_code == 0, applied.output
    assert "written and soaked at" in applied.output, "it is not soaked again"
    assert f"applied: {RUN_ID} serves" in applied.output
    supervisor = ProcessSupervisor(desk.root / "etc" / "supervised")
    serving = [pid for unit in UNITS for pid in supervisor.pids(unit)]
    assert len(serving) == 2

    desk.written(BROKEN, "services.vllm.extra_args={little_exit: true}")
    fell = desk.promote(BROKEN, "--apply")
    assert fell.exit_code == 3, fell.output
    assert "rolled back: vllm.service has ended: RuntimeError: no room on the device" in fell.output
    assert [len(supervisor.pids(unit)) for unit in UNITS] == [1, 1], "what served before serves again"

    other = desk.promote("--rollback", BROKEN)
    assert other.exit_code == 2
    assert f"the run in force is {RUN_ID}" in other.output
    undone = desk.promote("--rollback")
    assert undone.exit_code == 0, undone.output
    assert [supervisor.pids(unit) for unit in UNITS] == [[], []]
    assert not [pid for pid in serving if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    audit = [json.loads(line) for line in (desk.root / "etc" / "promotions" / "audit.jsonl").read_text().splitlines()]
    assert [(line["run_id"], line["step"], line["outcome"]) for line in audit if line["step"] in ("apply", "roll back", "rollback")] == [
        (RUN_ID, "apply", "begun"),
        (RUN_ID, "apply", "ok"),
        (BROKEN, "apply", "begun"),
        (BROKEN, "roll back", "begun"),
        (BROKEN, "roll back", "ok"),
        (RUN_ID, "rollback", "begun"),
        (RUN_ID, "roll back", "begun"),
        (RUN_ID, "roll back", "ok"),
    ]


def test_winner_measured_under_mps_is_refused(desk: Desk) -> None:
    """No MPS daemon is deployed with it."""
    folder = desk.written(RUN_ID, "services.whisper.mps_active_thread_pct=50")
    ended = desk.promote(RUN_ID, "--apply")
    assert ended.exit_code == 1, ended.output
    assert "refused: mps; nothing was deployed" in ended.output
    assert not json.loads((folder / "gate.json").read_text())["passed"]


def test_a_file_that_was_changed_after_the_gate_is_not_applied(desk: Desk) -> None:
    folder = desk.written(RUN_ID)
    (folder / "vllm.yaml").write_text("model: another\n")
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2
    assert "vllm.yaml: line 1 was reviewed as 'model: another'" in refused.output
    assert not (desk.root / "etc" / "vllm.yaml").exists()


def test_changed_target_is_reviewed_again_without_another_soak(desk: Desk) -> None:
    folder = desk.written(RUN_ID)
    (desk.root / "etc").mkdir()
    (desk.root / "etc" / "vllm.yaml").write_text("by: hand\n")
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2
    assert "Run promote without --apply and review the diff" in refused.output
    again = desk.promote(RUN_ID)
    assert (again.exit_code, "soaked at" in again.output) == (0, True), again.output
    assert "-by: hand" in (folder / "changes.diff").read_text()
    applied = desk.promote(RUN_ID, "--apply")
    assert applied.exit_code == 0, applied.output
    assert desk.promote("--rollback").exit_code == 0
    assert (desk.root / "etc" / "vllm.yaml").read_text() == "by: hand\n"


def test_what_another_version_of_the_program_applied_can_be_undone(desk: Desk) -> None:
    desk.written(RUN_ID)
    assert desk.promote(RUN_ID, "--apply").exit_code == 0

    def of_another_version(state: dict[str, Any]) -> None:
        state["changes"][0]["approved_by"] = "somebody"
        state["changes"][0]["settings"]["canary_pct"] = 5
        state["changes"][0]["settings"]["vllm"]["region"] = "north"
        del state["changes"][0]["settings"]["soak_growth_pct"]
        del state["changes"][0]["settings"]["services"]
        del state["changes"][0]["services"]

    edit(desk.root / "etc" / ".tune-gpu" / "state.json", of_another_version)
    undone = desk.promote("--rollback")
    assert undone.exit_code == 0, undone.output
    assert not (desk.root / "etc" / "vllm.yaml").exists()


def test_an_interrupt_says_what_it_left_behind(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    desk.written(RUN_ID)
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "probe", interrupted)
        stopped = desk.promote(RUN_ID, "--apply")
        assert (stopped.exit_code, "interrupted; the deployment is as it was before" in stopped.output) == (130, True), stopped.output
    assert not (desk.root / "etc" / "vllm.yaml").exists()
    assert desk.promote(RUN_ID, "--apply").exit_code == 0


def test_an_interrupt_after_which_not_all_serves_again_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def unhealthy(*_: Any, **__: Any) -> None:
        raise Unhealthy("vllm does not answer")

    desk.written(RUN_ID)
    assert desk.promote(RUN_ID, "--apply").exit_code == 0
    desk.written(BROKEN, "services.vllm.max_model_len=512")
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "probe", interrupted)
        real = Watcher.wait
        patch.setattr(Watcher, "wait", lambda self, *a: unhealthy() if a[2] is None else real(self, *a))
        stopped = desk.promote(BROKEN, "--apply")
    assert stopped.exit_code == 130
    assert "interrupted; the previous files were restored, but not all services that answered before do: vllm does not answer" in stopped.output


def test_the_later_comparison_counts_whatever_the_clock_said_meanwhile(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    later = write_comparison(folder, measured=replicates(winner_ms=1190.0), ended_at="2026-01-31T12:00:00+00:00")
    write_comparison(folder, "confirmation", ended_at="2026-01-31T13:00:00+00:00")
    run = read_finished_run(str(tmp_path), RUN_ID, [], "promote")
    assert evidence_of(run).comparison == Comparison.parse(later, "comparison.json")
    another = later | {"arms": later["arms"] | {"winner": later["arms"]["baseline"]}}
    folder.write_json("comparison.json", another)
    found = evidence_of(run).comparison
    assert found is not None
    assert found.confirmed, "the run was gone on with since, and confirmed another winner"


def test_a_folder_whose_manifest_is_no_promotions_is_not_written_into(desk: Desk) -> None:
    run = made_run(desk.root)
    manifest = run.path / "manifest.json"
    before = manifest.read_text()
    refused = desk.promote(RUN_ID, "--out", str(run.path))
    assert refused.exit_code == 2
    assert f"--out {run.path}: its manifest.json is not a promotion's" in refused.output
    assert manifest.read_text() == before
    assert not (run.path / "gate.json").exists()
    elsewhere = desk.root / "review"
    assert desk.promote(RUN_ID, "--out", str(elsewhere)).exit_code == 1
    assert (elsewhere / "gate.json").exists()


def test_neither_the_audit_log_nor_the_gates_record_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-environment")
    printed: list[str] = []
    Audit(tmp_path / "audit.jsonl", {}, printed.append)("roll back", "begun", why="vllm.service has ended: of-the-environment is no token")
    _write_verdict(tmp_path, {"conditions": [{"said": "startup_crash: of-the-environment is no token"}]})
    for text in (printed[0], *(path.read_text() for path in tmp_path.iterdir())):
        assert "of-the-environment" not in text
        assert REDACTED in text
