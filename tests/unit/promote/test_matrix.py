"""Every step of an apply and of a rollback gets a fault in turn; afterwards the old or the new deployment is whole and serves, never a mixture.

The steps are those that the program itself writes into its journal: a new step gets a fault without a change here.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.made_run import FAST, SLOW
from tests.unit.promote.injected import NEW, Injection, Setup
from tests.unit.promote.test_apply import KEYS, UNITS, Place
from tests.unit.promote.test_apply import place as place
from tune_gpu.promote import watch
from tune_gpu.promote.apply import folder_of, target_of
from tune_gpu.promote.bundle import before_of, bundle_of
from tune_gpu.promote.in_force import deployment_in
from tune_gpu.promote.recovery_unit import NAME
from tune_gpu.promote.render import services_of
from tune_gpu.services.loopback import NoAnswer, get

TINY = Path(__file__).with_name("tiny_server.py")
OLD = "old"


def tiny(config: Any, max_model_len: int) -> Any:
    """The same target with tiny servers; the engine's context tells the deployments apart."""
    command = [sys.executable, "-S", str(TINY)]
    promote = config.promote
    return replace(
        config,
        promote=replace(
            promote, probes=0, vllm=replace(promote.vllm, command=command), whisper=replace(promote.whisper, command=command)
        ),
        services=replace(config.services, vllm=replace(config.services.vllm, max_model_len=max_model_len)),
    )


def answer_of(url: str, key: str) -> tuple[int, bytes]:
    """A signal ends a rollback's wait for the services, which are only then about to serve; the test's time-out ends this one."""
    while True:
        with contextlib.suppress(NoAnswer):
            return get(url, key)
        time.sleep(0.01)


@dataclass
class Table:
    """An old deployment that serves, a new one, and processes that get a fault while they change one for the other."""

    place: Place
    setup: Setup
    kept: Path
    """The setup as a file."""
    old: dict[Path, str]
    injector: subprocess.Popen[str]

    def inject(self, injection: Injection) -> tuple[int, list[str]]:
        """Exit code and the steps that were begun."""
        assert self.injector.stdin is not None
        assert self.injector.stdout is not None
        print(json.dumps([str(self.kept), asdict(injection)]), file=self.injector.stdin, flush=True)
        code, steps = json.loads(self.injector.stdout.readline())
        for disk in (self.setup.target_disk, self.setup.artifacts_disk):
            (disk / "filling").unlink(missing_ok=True)
        return code, steps

    def begin(self, action: str) -> None:
        """The deployment that the action starts from is in force."""
        wanted = NEW if action == "rollback" else OLD
        if self.in_force() != wanted:
            if wanted == OLD:
                assert self.place.deployer().rollback()[1].serving
            else:
                setup = self.setup
                deployer = self.place.deployer(setup.services)
                assert deployer.apply(NEW, "experiment", setup.services, setup.files, setup.reviewed, None) is None

    def in_force(self) -> str:
        """What `status` says is in force; the deployment is checked to be that one, whole and serving."""
        deployed = deployment_in(folder_of(self.place.config.promote))
        assert deployed.state == "in_force", deployed.message
        run_id = str(deployed.run_id)
        files = self.setup.files if run_id == NEW else self.old
        assert {path: path.read_text() for path in files} == dict(files), f"files of {run_id}"
        for name, path in (("vllm", "/v1/models"), ("whisper", "/health")):
            where = getattr(self.place.config.promote, name)
            status, body = answer_of(where.url + path, KEYS[where.key_env])
            assert status == 200
            content = json.loads(body)
            config = yaml.safe_load(files[folder_of(self.place.config.promote) / f"{name}.yaml"])
            if name == "vllm":
                assert content["data"][0]["max_model_len"] == config["max-model-len"], f"the engine of {run_id}"
            else:
                assert content["name"] == config["name"], f"the Whisper of {run_id}"
        self.check_nothing_is_left()
        return run_id

    def check_nothing_is_left(self) -> None:
        install = folder_of(self.place.config.promote)
        assert not [str(path) for path in install.rglob(".*tune-gpu-*")]
        assert not (self.place.root / "units" / NAME).exists()
        processes = [each for each in self.place.processes() if each.info["status"] != "zombie"]
        assert len(processes) == 2, processes


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def injector() -> Iterator[subprocess.Popen[str]]:
    """One process for all tests: its imports take longer than several injections."""
    command = [sys.executable, "-m", "tests.unit.promote.injected"]
    injector = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield injector
    injector.communicate()


@pytest.fixture
def table(place: Place, injector: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    monkeypatch.setattr("tests.unit.promote.test_apply.SERVER", TINY)
    monkeypatch.setattr(watch, "_POLL_S", 0.01)
    place.config = tiny(place.config, 256)
    target, install = target_of(place.config.promote), folder_of(place.config.promote)
    artifacts = tmp_path / "artifacts"
    with contextlib.ExitStack() as undo:
        for folder in (install, artifacts):
            folder.mkdir(exist_ok=True)
            if os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", folder], capture_output=True).returncode == 0:
                undo.callback(unmount, folder)
        old_services, new_services = services_of(place.config, SLOW, "cpu"), services_of(tiny(place.config, 512), FAST, "cpu")
        bundle = bundle_of(old_services, target, install)
        place.deployer(old_services).apply(OLD, "experiment", old_services, bundle.installable, before_of(bundle), None)
        new = bundle_of(new_services, target, install)
        setup = Setup(place.config, new_services, new.installable, before_of(new), install, artifacts, dict(os.environ), tmp_path / "steps")
        (tmp_path / "setup").write_bytes(pickle.dumps(setup))
        try:
            yield Table(place, setup, tmp_path / "setup", bundle.installable, injector)
        finally:
            for unit in UNITS:
                target.stop(unit)


def every_step_has_a_fault(table: Table, action: str, *hows: str) -> None:
    """The n-th step by the n-th of these, and round again."""
    back = {2: OLD, 3: OLD, 130: OLD}
    wanted = {"apply": {0: NEW, **back}, "fall short": back, "rollback": {0: OLD, 2: NEW, 4: OLD}}  # what an exit code claims
    table.begin(action)
    code, steps = table.inject(Injection(action, hows[0], None))
    assert code == (3 if action == "fall short" else 0)
    assert len(steps) > 10, "an action has this many steps"
    first = next((n for n, step in enumerate(steps) if step.startswith("restore")), 0) if action == "fall short" else 0
    for number, step in list(enumerate(steps))[first:]:
        how = hows[number % len(hows)]
        where = f"{action}, {how} at {step!r}"
        table.begin(action)
        code, begun = table.inject(Injection(action, how, number))
        assert begun[: number + 1] == steps[: number + 1], where
        assert (code == -9) is (how == "SIGKILL"), where
        if how == "SIGKILL":
            place, install = table.place, folder_of(table.place.config.promote)
            interrupted = deployment_in(install).state == "interrupted"
            assert (place.deployer().recover() is not None) is interrupted, where
            assert place.deployer().recover() is None, f"{where}: a second time there is nothing to do"
        try:
            in_force = table.in_force()
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error
        if how != "SIGKILL":
            assert in_force == wanted[action][code], f"{where}: exit code {code}"


ACTIONS = pytest.mark.parametrize("action", ["apply", "rollback"])
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk that can be filled is mounted by root")


@ACTIONS
@pytest.mark.parametrize("hows", [["SIGKILL"], ["SIGHUP", "SIGTERM", "SIGINT"], ["exception"]], ids=["kill", "signals", "exception"])
def test_whatever_befalls_a_step_one_deployment_is_whole(table: Table, action: str, hows: list[str]) -> None:
    every_step_has_a_fault(table, action, *hows)


@ROOT
@ACTIONS
@pytest.mark.parametrize("how", ["full target", "full artifacts"])
def test_a_disk_that_is_full_at_any_step_leaves_one_whole(table: Table, action: str, how: str) -> None:
    every_step_has_a_fault(table, action, how)


@pytest.mark.parametrize("place", ["systemd"], indirect=True)
@ACTIONS
def test_under_systemd_a_kill_at_any_step_leaves_one_whole(table: Table, action: str) -> None:
    every_step_has_a_fault(table, action, "SIGKILL")


def test_a_kill_in_the_rollback_of_an_apply_that_falls_short(table: Table) -> None:
    every_step_has_a_fault(table, "fall short", "SIGKILL")


@pytest.mark.soak
@pytest.mark.parametrize("place", ["process", "systemd"], indirect=True)
@pytest.mark.parametrize("action", ["apply", "rollback", "fall short"])
@pytest.mark.parametrize("how", ["SIGHUP", "SIGTERM", "SIGINT", "exception"])
def test_every_fault_at_every_step_under_both_targets(table: Table, action: str, how: str) -> None:
    every_step_has_a_fault(table, action, how)
