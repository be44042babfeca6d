"""A kind of somebody else's package is measured, compared, reported, deployed and undone, by its entry point alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.plugged import plug
from tests.unit.promote.test_apply import free_ports
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.services.loopback import NoAnswer, get

pytestmark = [pytest.mark.ray, pytest.mark.soak]  # three starts of Ray; test_plugged_kind.py has its promotion in the gate
KEY = "of-the-fake"
SPACE = {
    "name": "faked",
    "device": "cpu",
    "services": {"writer": {"kind": "fake"}},
    "parameters": {"word_ms": {"target": "writer.latency_ms", "values": [1, 60]}},
    "baseline": {"word_ms": 60},
    "objective": {"weights": {"writer.ttft": 0.5, "writer.latency": 0.5}, "targets": {"writer.ttft_ms": 50, "writer.latency_ms": 200}},
    "traffic": {"turn_rate_per_s": 8, "max_tokens": 3, "windows": 1, "window_s": 1, "warmup_turns": 1, "capacity_step_s": 0, "solo_window_s": 0},
    "search": {"generations": 1, "recheck": 0},
    "confirm": {"enabled": False, "metric": "turn_ms.p50"},
    "ray": {"dashboard": False},
}


@dataclass
class Desk:
    """A folder of runs, with the package of the kind on the path."""

    root: Path
    env: dict[str, str]

    def __call__(self, module: str, *arguments: str) -> str:
        """Run a command to its successful end, and return what it printed."""
        command = [sys.executable, "-m", module, *arguments, f"run.artifacts_dir={self.root / 'runs'}"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    package = plug(tmp_path / "package")
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    yield Desk(tmp_path, os.environ | {"PYTHONPATH": str(package), "FAKE_API_KEY": KEY})
    ProcessSupervisor(tmp_path / "deployed" / "supervised").stop("tune-gpu-writer.service")


@pytest.mark.timeout(600)
def test_a_kind_of_another_package_goes_from_launch_to_rollback(desk: Desk) -> None:
    assert "winner: " in desk("tune_gpu.launch", str(desk.root / "space.yaml"))
    (run,) = (desk.root / "runs" / "faked").iterdir()
    desk("tune_gpu.cli.main", "compare", run.name, "--rounds", "3")
    desk("tune_gpu.cli.main", "report", run.name)
    assert "writer" in (run / "report.html").read_text()

    (port,) = free_ports(1)
    install = desk.root / "deployed"
    promote = [
        *("promote", run.name, "--target", "process", f"promote.install_dir={install}", "promote.device=cpu", "promote.neighbours_mib=0"),
        *("promote.metric=turn_ms.p50", "promote.soak_s=1", "promote.probes=2", "promote.probe_max_ratio=50", f"promote.services.writer.url=http://127.0.0.1:{port}"),
    ]  # fmt: skip
    review = desk("tune_gpu.cli.main", *promote)
    (sha256,) = [line.rpartition(": ")[2] for line in review.splitlines() if line.startswith("sha256 of the bundle: ")]
    manifest = json.loads((desk.root / "runs" / "promotions" / "faked" / run.name / "manifest.json").read_text())
    assert set(manifest["files"]) == {"writer.env", "tune-gpu-writer.service.json"}

    assert f"applied: {run.name} serves" in desk("tune_gpu.cli.main", *promote, "--apply", "--expect", sha256)
    assert get(f"http://127.0.0.1:{port}/v1/models")[0] == 401
    assert get(f"http://127.0.0.1:{port}/v1/models", KEY)[0] == 200
    audit = [json.loads(line) for line in (install / "promotions" / "audit.jsonl").read_text().splitlines()]
    (compared,) = [line for line in audit if line["step"] == "compare"]
    assert (compared["outcome"], compared["compared_with"]) == ("ok", "command line, environment")

    assert "rolled back: the files from before" in desk("tune_gpu.cli.main", "promote", "--rollback", f"promote.install_dir={install}")
    with pytest.raises(NoAnswer):
        get(f"http://127.0.0.1:{port}/health", KEY)
    assert not (install / "writer.env").exists()
