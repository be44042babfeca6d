"""The defaults by which a start log is read are those of the installed vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tune_gpu.promote.sources import DEFAULTS


@pytest.mark.timeout(200)
def test_the_defaults_are_those_of_the_installed_parser(tmp_path: Path) -> None:
    out = tmp_path / "defaults.json"
    subprocess.run([sys.executable, "-m", "tests.services.installed_defaults", str(out)], check=True, capture_output=True, timeout=180)
    assert json.loads(DEFAULTS.read_text(encoding="utf-8")) == json.loads(out.read_text(encoding="utf-8"))
