"""Conformance tests for targets of `promote`: one whose tests pass starts what was written for it, ends it, and says what became of it.

Derive from `TargetConformance`, and define the fixture `target`:

    class TestMyTarget(TargetConformance):
        @pytest.fixture
        def target(self, tmp_path: Path) -> Target:
            return MyTarget(tmp_path / "units")

The suite deploys its own small server as the unit `unit`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.process.managed import kill_and_wait
from tune_gpu.common.process.ports import free_port
from tune_gpu.promote.env_file import SECRETS
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.target import Target
from tune_gpu.services.base import Service
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.testing.fake_kind import KIND, FakeSettings

_PATIENCE_S = 30.0
_PORTS = (20000, 29999)
KEY = "the-key-of-a-test"


class TargetConformance:
    """What holds for every target."""

    unit = "tune-gpu-conformance.service"

    @pytest.fixture
    def install(self, tmp_path: Path) -> Path:
        """Return the folder of the files that are deployed."""
        folder = tmp_path / "install"
        folder.mkdir()
        return folder

    @pytest.fixture
    def service(self, install: Path) -> DeployedService:
        """Return a small server as a service that is deployed. The key that it asks for is in the install folder."""
        write_whole(install / SECRETS, f"FAKE_API_KEY={KEY}\n")
        host, port = "127.0.0.1", free_port(_PORTS)
        fake = Service("fake", KIND, FakeSettings(env={"A": 'of "two" words'}))
        deployable = KIND.deployable(fake.name, fake.settings, "cpu", host=host, port=port)
        place = Place(fake.name, self.unit, f"http://{host}:{port}", deployable.key_variables[0], deployable.health)
        return DeployedService(place, fake, deployable, "cpu", tuple(deployable.arguments()), "", 20.0)

    @pytest.fixture(autouse=True)
    def nothing_stays(self, target: Target) -> Iterator[None]:
        """End what a test that failed has left running."""
        yield
        kill_and_wait(target.pids(self.unit))

    def write(self, target: Target, service: DeployedService, install: Path) -> None:
        """Write the files of a service, as `promote` does."""
        files = target.unit_files([service], install)
        assert files
        target.check([service.unit])
        target.check_files(files)
        for path, content in {**files, install / f"{service.name}.env": service.env_text}.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        target.reload()
        target.verify(files)

    def serve(self, target: Target, service: DeployedService, install: Path) -> None:
        """Install a service, start it, and wait until it answers."""
        self.write(target, service, install)
        target.start(service.unit)
        _until(lambda: _status(service) == 200)

    def test_what_is_started_runs_and_what_is_stopped_does_not(self, target: Target, service: DeployedService, install: Path) -> None:
        self.serve(target, service, install)
        assert target.is_running(service.unit)
        assert target.failure(service.unit) is None
        pids = target.pids(service.unit)
        assert pids
        target.stop(service.unit)
        assert not target.is_running(service.unit)
        assert target.pids(service.unit) == []
        assert _status(service) is None
        target.stop(service.unit)

    def test_the_unit_gets_its_variables_and_the_secrets(self, target: Target, service: DeployedService, install: Path) -> None:
        self.serve(target, service, install)
        environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in target.pids(service.unit)]
        assert any(b'A=of "two" words' in each for each in environments)
        assert get(service.health_url)[0] == 401, "it was started without the secret in the install folder"
        target.stop(service.unit)

    def test_a_unit_that_runs_is_not_started_again(self, target: Target, service: DeployedService, install: Path) -> None:
        self.serve(target, service, install)
        pids = target.pids(service.unit)
        target.start(service.unit)
        assert target.pids(service.unit) == pids
        target.stop(service.unit)

    def test_a_unit_that_ended_by_itself_has_a_failure(self, target: Target, service: DeployedService, install: Path) -> None:
        self.serve(target, service, install)
        kill_and_wait(target.pids(service.unit))
        _until(lambda: target.failure(service.unit) is not None)
        failure = target.failure(service.unit)
        assert failure is not None
        assert service.unit in failure
        assert not target.is_running(service.unit)

    def test_its_log_is_that_of_the_last_start_or_is_not_kept(self, target: Target, service: DeployedService, install: Path) -> None:
        for _ in range(2):
            self.serve(target, service, install)
            log = target.log(service.unit)
            assert not log or log.count("listening on port") == 1
            target.stop(service.unit)

    def test_its_shell_commands_restart_the_unit(self, target: Target, service: DeployedService, install: Path) -> None:
        self.serve(target, service, install)
        pids = target.pids(service.unit)
        subprocess.run(["/bin/sh", "-e", "-c", "\n".join(target.shell([service.unit]))], check=True, timeout=_PATIENCE_S)
        _until(lambda: _status(service) == 200)
        assert target.is_running(service.unit)
        assert not set(pids) & set(target.pids(service.unit))
        target.stop(service.unit)

    def test_a_unit_has_one_lock_and_another_unit_another(self, target: Target) -> None:
        assert target.lock_of("a.service") == target.lock_of("a.service")
        assert target.lock_of("a.service") != target.lock_of("b.service")


def _status(service: DeployedService) -> int | None:
    try:
        return get(service.health_url, KEY, 2.0)[0]
    except NoAnswer:
        return None


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)
