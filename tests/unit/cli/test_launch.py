"""The command's manners: help that helps, one line for bad input, exit codes that mean something."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.made_run import RUN_ID, made_run
from tests.unit.promote.compared import write_comparison
from tune_gpu.cli.launch import launch
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.telemetry.cuda_visible import nvidia_cards
from tune_gpu.telemetry.device_choice import choose_device


def run(*arguments: str) -> Result:
    return CliRunner().invoke(launch, list(arguments))


def test_help_shows_how_it_is_called_and_what_the_exit_codes_mean() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    for wanted in ("KEY=VALUE", "--resume", "search.generations=6", "Exit codes"):
        assert wanted in shown.output
    assert "launch" in CliRunner().invoke(main, ["--help"]).output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "nowhere: no such space"),
        (["serach.seed=1"], "did you mean search?"),
        (["spica_gpu_allocation", "search.seed=x"], "search.seed"),
        (["device=tpu"], "device=tpu: not allowed. Set one of auto, cpu, cuda"),
        (["baseline.vllm_memory_util=7"], "baseline.vllm_memory_util=7: not allowed. Use 0.1"),
        (["run.artifacts_dir=/proc/nowhere"], "run.artifacts_dir"),
        (["--resume", "never"], "--resume never: no such run"),
        (["--resume", ""], "--resume : no such run"),
        (["--resume", "never", "search.seed=1"], "Only run.* and ray.* may be overridden"),
        (["--resume", "never", "run.artifacts_dir=there", "run.mps"], "run.mps: not an override. Use key=value"),
        (["--resume", "never", "~objective.weights.wer"], "~objective.weights.wer: a resumed run keeps its settings"),
        (["--resume", "never", "run.artifacts_dir=there", "~run.mps=1"], "~run.mps=1: not an override. Use key=value, or ~key"),
        (["~search.sed"], "~search.sed: no such key (did you mean seed?)"),
        (["ray.address=127.0.0.1:1", "device=cpu"], "ray.address=127.0.0.1:1: nothing answers there"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert ended.exit_code == 2, ended.output
    lines = ended.output.strip().splitlines()
    assert named in lines[-1]
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in ended.output
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


@pytest.mark.skipif(nvidia_cards() > 0, reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused_and_auto_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("device=cuda")
    assert ended.exit_code == 2
    assert "device=cuda: no NVIDIA GPU was found" in ended.output
    with pytest.raises(UserError, match="device=cuda"):
        choose_device("cuda")
    auto = choose_device("auto")
    assert auto.kind == "cpu"
    assert "no NVIDIA GPU" in auto.why


def test_a_cluster_without_cards_is_named_as_the_cause() -> None:
    assert choose_device("auto", cluster_gpus=0).why.startswith("no node of the Ray cluster has a GPU: measuring")
    with pytest.raises(UserError, match=r"device=cuda: no node of the Ray cluster has a GPU\. Set device=cpu"):
        choose_device("cuda", cluster_gpus=0)


def test_resuming_a_run_that_has_ended_says_so_and_changes_nothing(tmp_path: Path) -> None:
    """It rewrote winner, summary and times, and threw a later comparison away."""
    folder = made_run(tmp_path)
    write_comparison(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = run("--resume", RUN_ID, f"run.artifacts_dir={tmp_path}", "--trust")
    assert ended.exit_code == 0, ended.output
    said = " ".join(ended.output.split())
    assert f"run {RUN_ID} has ended (generations): the winner is " in said
    assert "Nothing was measured and nothing was changed." in said
    assert f"tune-gpu report {RUN_ID}" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
