"""The targets of `promote` conform: the plain supervisor, and systemd before a stand-in for systemctl."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.unit import promote
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.systemd import Systemd
from tune_gpu.promote.target import Target
from tune_gpu.testing.target_conformance import TargetConformance

SYSTEMCTL = Path(str(promote.__file__)).with_name("fake_systemctl.sh")


class TestProcess(TargetConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        return ProcessSupervisor(tmp_path / "units")


class TestSystemd(TargetConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
        for folder in ("units", "bin"):
            (tmp_path / folder).mkdir()
        shutil.copy(SYSTEMCTL, tmp_path / "bin" / "systemctl")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SYSTEMD", str(tmp_path / "units"))
        (tmp_path / "units" / f"{self.unit}.command").write_text("true")
        (tmp_path / "units" / self.unit).write_text("[Service]\nExecStart=/bin/true\n")
        return Systemd(tmp_path / "units")
