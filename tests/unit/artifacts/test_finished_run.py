"""A run that cannot be compared or promoted says in one line why."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.made_run import EXPERIMENT, FAST, QUICK, RUN_ID, SLOW, made_run
from tune_gpu.artifacts.finished_run import FinishedRun, read_finished_run
from tune_gpu.artifacts.reading import read_comparison
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.compare import _request
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.compare.arms import changed_params, winner_of_other


def read(root: Path, run_id: str = RUN_ID) -> FinishedRun:
    return read_finished_run(str(root), run_id, [], "compare")


def test_a_finished_run_comes_back_with_its_winner(tmp_path: Path) -> None:
    made_run(tmp_path)
    run = read(tmp_path)
    assert run.winner == FAST
    assert run.config.baseline == SLOW
    assert run.device.kind == "cpu"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    made_run(root)
    return root


def damaged(folder: RunFolder, name: str, content: str) -> None:
    (folder.path / name).write_text(content)


def test_runs_that_are_no_use_are_named_with_the_reason(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    summary = json.loads((folder.path / "summary.json").read_text())
    manifest = json.loads((folder.path / "manifest.json").read_text())
    with pytest.raises(UserError, match=r"nothing: no such run .*20260131-120000"):
        read(tmp_path, "nothing")
    for content, message in [
        (json.dumps(summary)[:100], r"summary\.json: not a whole JSON file"),
        (json.dumps(summary | {"run_id": "other"}), r"it belongs to run other, not to 20260131-120000"),
        (json.dumps(summary | {"schema_version": 99}), "schema_version=99: this program reads up to 1"),
        ("[]", "not written by this program"),
        (json.dumps({k: v for k, v in summary.items() if k != "best"}), "`best` is missing"),
        (json.dumps(summary | {"best": None}), r"it has no winner, because no configuration was feasible \(2 evaluations, none within the constraints\)"),
        (json.dumps(summary | {"ended": "interrupted"}), r"has not ended .*--resume 20260131-120000"),
    ]:
        damaged(folder, "summary.json", content)
        with pytest.raises(UserError, match=message):
            read(tmp_path)
    damaged(folder, "summary.json", json.dumps(summary))
    damaged(folder, "manifest.json", json.dumps(manifest | {"ended_at": None}))
    with pytest.raises(UserError, match="it is still running"):
        read(tmp_path)
    damaged(folder, "manifest.json", json.dumps(manifest | {"ended_at": None, "process": None}))
    with pytest.raises(UserError, match="has not ended"):
        read(tmp_path)
    (folder.path / "summary.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        read(tmp_path)
    damaged(folder, "config.yaml", "name: [half")
    with pytest.raises(UserError, match=r"config\.yaml: not a run's configuration"):
        read(tmp_path)
    (folder.path / "comparison.json").write_text('{"run_id": "x')
    with pytest.raises(UserError, match=r"comparison\.json: not a whole JSON file"):
        read_comparison(folder, "comparison.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-run"], "no such run"),
        ([RUN_ID, "--against", "no-such-run"], "no-such-run: no such run"),
        ([RUN_ID, "--baseline", "speed=3"], "no such parameter. Use one of vllm_memory_util"),
        ([RUN_ID, "--baseline", "vllm_memory_util=much"], "not a value of its kind. Use one like 0.1"),
        ([RUN_ID, "--baseline", "vllm_memory_util=7"], "--baseline: vllm.gpu_memory_utilization=7: out of range. Set a number above 0 and at most 1"),
        ([RUN_ID, "--against", "vllm_cores=a"], "--against: vllm.cpu_cores=a: not a list of cores"),
        ([RUN_ID, "~workload.window_s"], "only run.*, ray.*, confirm.* and promote.* may be overridden"),
        ([RUN_ID, "~confirm.tolerances.war"], "~confirm.tolerances.war: no such key (did you mean wer?)"),
        ([RUN_ID, "--baseline", "whisper_model_size=tiny.en"], "the same configuration"),
        ([RUN_ID, "--baseline", "vllm_memory_util"], "vllm_memory_util is not KEY=VALUE. Give KEY=VALUE,KEY=VALUE."),
        ([RUN_ID, "--against", RUN_ID], "the same configuration"),
        ([RUN_ID, "--against", "whisper_cores=0-1", "--baseline", "whisper_cores=0-1"], "Give one of them."),
        ([RUN_ID, "workload.window_s=3"], "only run.*, ray.*, confirm.* and promote.* may be overridden"),
        ([RUN_ID, "confirm.metric=speed"], "confirm.metric=speed: not allowed"),
    ],
)
def test_compare_says_what_is_wrong_in_one_line(finished: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["compare", *arguments, f"run.artifacts_dir={finished}"])
    assert result.exit_code == 2, result.output
    (line,) = result.output.strip().splitlines()
    assert message in line
    assert line.startswith("error: ")


def test_a_comparison_that_cannot_be_kept_is_one_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "comparison.jsonl")

    monkeypatch.setattr("tune_gpu.cli.compare._measure", full)
    result = CliRunner().invoke(main, ["compare", RUN_ID, "-q", f"run.artifacts_dir={finished}"])
    assert (result.exit_code, result.output) == (2, "error: [Errno 28] No space left on device: 'comparison.jsonl'\n")


def test_a_clusters_run_is_compared_from_a_machine_without_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards and services are the cluster's: neither is asked of the machine where the command runs."""
    asked: list[str] = []

    def measured(_request: object, kind: str, _print_line: object) -> None:
        asked.append(kind)
        raise UserError("measured")

    made_run(tmp_path, overrides=[*(setting for setting in QUICK if setting != "device=cpu"), "device=cuda", "ray.address=there:6379"])
    monkeypatch.setattr("tune_gpu.ray_tune.devices.cards_of_cluster", lambda settings: 4 if settings.address == "there:6379" else None)
    monkeypatch.setattr("tune_gpu.telemetry.device_choice.nvidia_cards", lambda: 0)
    for kind in ("vllm", "faster_whisper"):
        monkeypatch.setattr(f"tune_gpu.services.{kind}.kind.is_installed", lambda _distribution: False)
    monkeypatch.setattr("tune_gpu.cli.compare._measure", measured)
    result = CliRunner().invoke(main, ["compare", RUN_ID, f"run.artifacts_dir={tmp_path}"])
    assert (result.exit_code, asked) == (2, ["cuda"]), result.output
    assert "measuring on 4 NVIDIA GPUs" in result.output


def test_a_comparison_takes_the_runs_secrets_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path, overrides=[*QUICK, "services.vllm.env.HF_TOKEN=<redacted>"])
    monkeypatch.delenv("HF_TOKEN", raising=False)
    result = CliRunner().invoke(main, ["compare", RUN_ID, f"run.artifacts_dir={tmp_path}"])
    assert (result.exit_code, "Set the environment variable HF_TOKEN" in result.output) == (2, True), result.output


def test_what_runs_today_may_lie_outside_the_space(tmp_path: Path) -> None:
    made_run(tmp_path)
    run = read(tmp_path)
    assert changed_params(run.config, SLOW, "vllm_memory_util=0.33", "--baseline") == SLOW | {"vllm_memory_util": 0.33}


def test_another_runs_winner_must_mean_the_same_deployment(tmp_path: Path) -> None:
    made_run(tmp_path)
    same, other = "20260131-130000", "20260131-140000"
    made_run(tmp_path, run_id=same)
    made_run(tmp_path, run_id=other, overrides=[*QUICK, "services.vllm.max_model_len=512"])
    assert winner_of_other(read(tmp_path), read(tmp_path, same)) == FAST
    with pytest.raises(UserError, match=r"services\.vllm\.max_model_len=512, 20260131-120000 2048"):
        winner_of_other(read(tmp_path), read(tmp_path, other))


def test_another_run_that_is_named_by_its_folder_is_the_same_arm(tmp_path: Path) -> None:
    made_run(tmp_path, run_id="20260131-130000")
    run = made_run(tmp_path)
    summary = json.loads((run.path / "summary.json").read_text())
    damaged(run, "summary.json", json.dumps(summary | {"best": summary["best"] | {"params": SLOW}}))
    by_name = _request(RUN_ID, [f"run.artifacts_dir={tmp_path}"], None, "20260131-130000", 60.0, None)
    by_folder = _request(str(run.path), [], None, str(run.path.with_name("20260131-130000")), 60.0, None)
    assert by_folder.file == by_name.file == "comparison-20260131-130000"
    assert list(by_folder.arms) == ["winner", "20260131-130000"]


def test_a_run_without_a_winner_is_refused(tmp_path: Path) -> None:
    made_run(tmp_path, feasible=False)
    with pytest.raises(UserError, match="no winner"):
        read(tmp_path)
    assert not (tmp_path / "winners" / f"{EXPERIMENT}.json").exists()


def test_a_run_whose_folder_has_a_name_of_no_run_is_refused(tmp_path: Path) -> None:
    made = made_run(tmp_path)
    odd = made.path.rename(made.path.with_name("run\x1b[2K"))
    with pytest.raises(UserError, match="run_id="):
        read_finished_run(str(tmp_path), str(odd), [], "promote")
