"""A space runs without the packages of services that it does not have. What is checked without services: `tests/unit/cli/test_without_packages.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.without import CASES, Case, without
from tune_gpu.common.places import SOURCE

SHORT = [
    "device=cpu", "search.generations=1", "search.recheck=0", "search.anchors=0", "confirm.enabled=false", "workload.windows=1",
    "workload.window_s=2", "workload.capacity_step_s=0", "objective.weights.capacity=0", "ray.dashboard=false",
]  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.space)
def test_a_space_runs_to_a_winner_without_packages_that_it_does_not_need(case: Case, tmp_path: Path) -> None:
    environment = without(tmp_path, case.modules, case.distributions)
    command = [sys.executable, "-m", "tune_gpu.launch", case.space, *case.overrides, *SHORT, f"run.artifacts_dir={tmp_path / 'artifacts'}"]
    ended = subprocess.run(command, env=environment, cwd=SOURCE, capture_output=True, text=True, timeout=880, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (lines,) = (tmp_path / "artifacts" / case.space).glob("*/gen_0_candidates.jsonl")
    assert [json.loads(line)["status"] for line in lines.read_text().splitlines()] == ["ok", "ok"]
