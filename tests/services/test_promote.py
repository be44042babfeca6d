"""A promotion for real: soaked, written, applied to real processes (vLLM by its own YAML), probed, and taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.made_run import EXPERIMENT, FAST, QUICK, RUN_ID, SLOW, made_run
from tests.unit.promote.compared import write_comparison
from tests.unit.promote.test_apply import free_ports
from tune_gpu.promote.supervisor import ProcessSupervisor


@pytest.mark.timeout(600)  # a review, and then an application: vLLM starts twice
def test_a_winner_is_promoted_serves_and_is_taken_back(tmp_path: Path) -> None:
    write_comparison(made_run(tmp_path, overrides=[*QUICK, "services.vllm.max_model_len=512"]))
    stt, llm = free_ports(2)
    install = tmp_path / "deployed"
    command = [
        *(sys.executable, "-m", "tune_gpu.cli.main", "promote"),
        *(RUN_ID, "--target", "process", "--soak-s", "2", f"run.artifacts_dir={tmp_path}", f"promote.install_dir={install}"),
        *("promote.device=cpu", "promote.neighbours_mib=0", "promote.probes=2", "promote.probe_max_ratio=50"),
        *(f"promote.whisper.url=http://127.0.0.1:{stt}", f"promote.vllm.url=http://127.0.0.1:{llm}"),
    ]
    env = os.environ | {"TUNE_GPU_API_KEY": "ears", "VLLM_API_KEY": "mind"}
    try:
        review = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env)
        assert review.returncode == 0, review.stdout + review.stderr
        assert "soak: ok" in review.stdout
        (sha256,) = [line.rpartition(": ")[2] for line in review.stdout.splitlines() if line.startswith("sha256 of the bundle: ")]
        done = subprocess.run([*command, "--apply", "--expect", sha256], capture_output=True, text=True, timeout=280, env=env)
        assert done.returncode == 0, done.stdout + done.stderr + logs(install)
        folder = tmp_path / "promotions" / EXPERIMENT / RUN_ID
        manifest = json.loads((folder / "manifest.json").read_text())
        assert set(manifest["files"]) == {
            *("vllm.yaml", "whisper.yaml", "vllm.env", "whisper.env", "vllm.service.json", "whisper.service.json"),
        }
        assert json.loads((folder / "gate.json").read_text())["soak"]["n_requests"] >= 1
        diff = (folder / "changes.diff").read_text()
        assert "the baseline's; nothing is installed there yet" in diff
        assert "-name: whisper-base" in diff
        assert "+name: whisper-tiny.en" in diff
        served = ask(llm, "/v1/models", "mind")["data"][0]
        assert (served["id"], served["max_model_len"]) == ("demo-llm", 512)
        assert ask(stt, "/health", "ears")["name"] == "whisper-tiny.en"
        written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log")
        assert "=ears" not in written, "keys are never written"
        assert '"ears' not in written
        supervisor = ProcessSupervisor(install / "supervised")
        pids = [pid for unit in ("vllm.service", "whisper.service") for pid in supervisor.pids(unit)]
        assert psutil.Process(supervisor.pids("vllm.service")[0]).cpu_affinity() == [int(SLOW["vllm_cores"])]
        undo = [*command[:4], "--rollback", f"run.artifacts_dir={tmp_path}", f"promote.install_dir={install}"]
        undone = subprocess.run(undo, capture_output=True, text=True, timeout=100, env=env)
        assert undone.returncode == 0, undone.stdout + undone.stderr
        assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        assert not (install / "vllm.yaml").exists()
        audit = [json.loads(line) for line in (install / "promotions" / "audit.jsonl").read_text().splitlines()]
        assert [(line["step"], line["outcome"]) for line in audit if line["step"] in ("apply", "probes", "rollback", "roll back")] == [
            ("apply", "begun"),
            ("probes", "ok"),
            ("apply", "ok"),
            ("rollback", "begun"),
            ("roll back", "begun"),
            ("roll back", "ok"),
        ]
        assert {line["run_id"] for line in audit} == {RUN_ID}
        assert manifest["params"] == FAST
        compared = {line["service"]: line for line in audit if line["step"] == "compare"}
        assert {line["outcome"] for line in compared.values()} == {"ok"}
        assert compared["vllm"]["compared_with"] == "command line, environment, start log, /metrics, /v1/models"
        assert compared["whisper"]["compared_with"] == "command line, environment, /health"
        assert [name for name, line in compared.items() if "not_readable_here" in line] == [], "every setting was read from the real services"
    finally:
        for unit in ("vllm.service", "whisper.service"):
            ProcessSupervisor(install / "supervised").stop(unit)


def ask(port: int, path: str, key: str) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return dict(json.loads(reply.read()))


def logs(install: Path) -> str:
    return "".join(f"\n{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in (install / "supervised").glob("*.log"))
