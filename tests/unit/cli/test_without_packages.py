"""A space needs the packages of its own services alone: an LLM needs no Whisper, and a recogniser no vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.without import CASES, Case, without

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
