"""What is applied serves, or what was there before does: real processes, under a plain supervisor and under (a stand-in for) systemd."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.made_run import FAST, QUICK, SLOW
from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import kill_and_wait
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig, ServiceTarget
from tune_gpu.promote import apply, restore
from tune_gpu.promote.apply import Deployer, folder_of, target_of
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.bundle import bundle_of, write_bundle
from tune_gpu.promote.installed import Change, Installation, Status
from tune_gpu.promote.live_turns import LiveTurns
from tune_gpu.promote.render import DeployedService, services_of
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.target import TargetError
from tune_gpu.promote.watch import Watcher
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.stages import stages_of

SERVER = Path(__file__).with_name("little_server.py")
SYSTEMCTL = Path(__file__).with_name("fake_systemctl.sh")
CLIP = Utterance("clip", np.zeros(1600, dtype=np.float32), "hello")
UNITS = ["whisper.service", "vllm.service"]
KEYS = {"TUNE_GPU_API_KEY": "the-ears-of-a-test", "VLLM_API_KEY": "the-mind-of-a-test"}


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass
class Place:
    """A target with everything around it."""

    config: ExperimentConfig
    root: Path

    def with_vllm(self, **extra: Any) -> ExperimentConfig:
        services = replace(self.config.services, vllm=replace(self.config.services.vllm, extra_args=extra))
        return replace(self.config, services=services)

    def deployer(self, services: Sequence[DeployedService] = ()) -> Deployer:
        """Return what deploys these services. A rollback needs none of them, only their places."""
        config, audit = self.config, Audit(self.root / "audit.jsonl", {"run_id": "run"})
        turns = LiveTurns(stages_of(config), services, (), config.workload, Inputs([CLIP]), config.run.port_range) if services else None
        places = [service.place for service in services or services_of(config, SLOW, "cpu")]
        return Deployer.of(config.promote, places, Watcher(config.promote, turns), audit)

    def apply(self, run_id: str, params: dict[str, Any], turn_ms: float | None = None, **extra: Any) -> Any:
        """Write and apply; with more settings of vLLM."""
        config, install = self.with_vllm(**extra), folder_of(self.config.promote)
        target = target_of(config.promote)
        services = services_of(config, params, "cpu")
        bundle = bundle_of(services, target, install)
        folder = self.root / "promotions" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gate.json").write_text("{}")
        manifest = write_bundle(folder, bundle, bundle, {"run_id": run_id})
        return self.deployer(services).apply(run_id, "experiment", services, bundle.installable, manifest["before"], turn_ms)

    def installed(self, name: str) -> str:
        return (folder_of(self.config.promote) / name).read_text()

    def steps(self) -> list[tuple[str, str]]:
        return [(line["step"], line["outcome"]) for line in map(json.loads, (self.root / "audit.jsonl").read_text().splitlines())]

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.root) in line and str(SERVER) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


BOTH = pytest.mark.parametrize("place", ["process", "systemd"], indirect=True)
SYSTEMD = pytest.mark.parametrize("place", ["systemd"], indirect=True)


def make_systemd(root: Path, units: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fake systemctl into the PATH, with these units, which start nothing yet."""
    for folder in ("units", "bin"):
        (root / folder).mkdir()
    shutil.copy(SYSTEMCTL, root / "bin" / "systemctl")
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SYSTEMD", str(root / "units"))
    for unit in units:
        (root / "units" / f"{unit}.command").write_text("true")
        (root / "units" / unit).write_text("[Service]\nExecStart=/bin/true\n")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    config = load_config("spica_gpu_allocation", QUICK, "cpu")
    kind = getattr(request, "param", "process")
    stt, llm = free_ports(2)
    command = [sys.executable, str(SERVER)]
    promote = replace(
        config.promote,
        target=kind,
        install_dir=str(tmp_path / "etc"),
        systemd_dir=str(tmp_path / "units"),
        whisper=ServiceTarget(UNITS[0], f"http://127.0.0.1:{stt}", "TUNE_GPU_API_KEY", command),
        vllm=ServiceTarget(UNITS[1], f"http://127.0.0.1:{llm}", "VLLM_API_KEY", command),
        health_deadline_s=20.0,
        probes=2,
    )
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    if kind == "systemd":
        make_systemd(tmp_path, UNITS, monkeypatch)
    place = Place(replace(config, promote=promote), tmp_path)
    yield place
    kill_and_wait([process.pid for process in place.processes()])


@BOTH
def test_what_is_applied_serves_and_is_undone(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    assert "base" in place.installed("whisper.yaml")
    first = {process.pid for process in place.processes()}
    assert len(first) == 2
    assert place.apply("run-2", FAST) is None
    assert "tiny.en" in place.installed("whisper.yaml")
    second = {process.pid for process in place.processes()}
    assert len(second) == 2
    assert not first & second, "both were started anew"
    change, back = place.deployer().rollback()
    assert (change.run_id, back.serving) == ("run-2", True)
    assert "base" in place.installed("whisper.yaml")
    assert len(place.processes()) == 2
    starts = [step for step in place.steps() if step[0] in ("start", "stop")]
    assert len(starts) == 12, "three restarts of two units"
    change, back = place.deployer().rollback()
    assert change.run_id == "run-1"
    assert not (place.root / "etc" / "whisper.yaml").exists()
    with pytest.raises(UserError, match="nothing that promote installed is in force"):
        place.deployer().rollback()


@pytest.mark.parametrize(
    ("place", "extra", "turn_ms", "why"),
    [
        ("process", {"little_exit": True}, None, "vllm.service has ended: RuntimeError: no room on the device"),
        ("systemd", {"little_exit": True}, None, "vllm.service is failed"),
        ("process", {"little_delay_s": 0.3}, 50.0, "live turns take"),
    ],
    indirect=["place"],
)
def test_what_falls_short_is_taken_back_by_itself(place: Place, extra: dict[str, Any], turn_ms: float | None, why: str) -> None:
    assert place.apply("run-1", SLOW) is None
    before = {path: path.read_text() for path in (place.root / "etc").glob("*.*") if path.is_file()}
    back = place.apply("run-2", FAST, turn_ms, **extra)
    assert why in back.why
    assert back.serving
    assert {path: path.read_text() for path in (place.root / "etc").glob("*.*") if path.is_file()} == before
    assert len(place.processes()) == 2, "what served before serves again"
    assert ("roll back", "ok") in place.steps()
    change, _ = place.deployer().rollback()
    assert change.run_id == "run-1", "the failed one is not in force"


def test_stopped_in_the_middle_it_goes_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.apply("run-1", SLOW) is None

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "probe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.apply("run-2", FAST)
    assert "base" in place.installed("whisper.yaml")
    assert len(place.processes()) == 2


def cut_off(place: Place) -> None:
    """What a process that is killed in the middle of an apply leaves behind."""
    installation, changed = Installation(folder_of(place.config.promote)), place.root / "etc" / "whisper.yaml"
    both = ("whisper", "vllm")
    with installation.locked():
        before = {str(changed): changed.read_text()}
        installation.begin(Change("run-2", "experiment", now(), tuple(UNITS), before, asdict(place.config.promote), both, both))
        installation.intend("reload")
        changed.write_text("half")


def test_after_a_kill_only_recover_or_rollback_is_allowed(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    for go_back in (Deployer.recover, Deployer.rollback):
        cut_off(place)
        with pytest.raises(UserError, match=r"apply of run run-2, .* was interrupted\. Run tune-gpu promote --recover first"):
            place.apply("run-3", FAST)
        ended = go_back(place.deployer())
        assert ended is not None
        change, back = ended
        assert (change.run_id, back.serving) == ("run-2", True)
        assert "base" in place.installed("whisper.yaml")
        assert len(place.processes()) == 2
        assert place.deployer().recover() is None, "there is nothing left to do"


def test_files_that_cannot_be_put_back_are_left_for_recover(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.apply("run-1", SLOW) is None

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(apply, "install", full)
        patch.setattr(restore, "put_back", full)
        with pytest.raises(UserError, match=r"No space left on device; .* run tune-gpu promote --recover"):
            place.apply("run-2", FAST)
    with pytest.raises(UserError, match="promote --recover first"):
        place.apply("run-2", FAST)
    ended = place.deployer().recover()
    assert ended is not None
    assert (ended[0].run_id, ended[1].serving) == ("run-2", True)


@BOTH
def test_a_rollback_leaves_stopped_what_was_stopped(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    target = target_of(place.config.promote)
    target.stop(UNITS[0])
    back = place.apply("run-2", FAST, little_exit=True)
    assert back.serving
    assert [target.is_running(unit) for unit in UNITS] == [False, True]


def test_one_service_that_cannot_be_started_again_keeps_no_other_down(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.apply("run-1", SLOW) is None
    real = ProcessSupervisor.start

    def start(self: ProcessSupervisor, unit: str) -> None:
        if unit == UNITS[0]:
            raise TargetError("it will not start")
        real(self, unit)

    with monkeypatch.context() as patch:
        patch.setattr(ProcessSupervisor, "start", start)
        back = place.apply("run-2", FAST)
    assert not back.serving
    assert "it will not start. Run tune-gpu promote --recover" in back.then
    assert [target_of(place.config.promote).is_running(unit) for unit in UNITS] == [False, True]
    assert "base" in place.installed("whisper.yaml")
    ended = place.deployer().recover()
    assert ended is not None
    assert ended[1].serving
    assert len(place.processes()) == 2


def test_a_rollback_goes_on_without_its_audit_log_and_its_terminal(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.apply("run-1", SLOW) is None
    (place.root / "audit.jsonl").unlink()
    (place.root / "audit.jsonl").mkdir()  # cannot be written: not even by root

    def gone(_line: str) -> None:
        raise SystemExit(1)  # what Rich does when nobody reads the pipe any more

    deployer = place.deployer()
    deployer.audit = Audit(place.root / "audit.jsonl", {}, gone)
    change, back = deployer.rollback()
    assert (change.run_id, back.serving) == ("run-1", True)
    assert not (place.root / "etc" / "whisper.yaml").exists()
    assert not place.processes()
    assert capsys.readouterr().err.count("the audit log cannot be written") == 1


NO_ANSWERS = {
    "bytes that are no HTTP": "SSH-2.0-OpenSSH_9.6\r\n",
    "nothing at all": "\r\n",
    "bytes that are no text": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "JSON of another shape": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "JSON that nests too deep": f"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{'[' * 100000}",
}


@pytest.mark.parametrize("says", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_whatever_a_port_answers_what_was_there_is_put_back(place: Place, says: str) -> None:
    assert place.apply("run-1", SLOW) is None
    place.config.promote.health_deadline_s = 2.0
    back = place.apply("run-2", FAST, little_says=says)
    assert "vllm" in back.why
    place.config.promote.health_deadline_s = 20.0
    assert len(place.processes()) == 2
    assert "base" in place.installed("whisper.yaml")
    last = Installation(folder_of(place.config.promote)).peek()
    assert last is not None
    assert (last.run_id, last.status) == ("run-1", Status.APPLIED)


def test_an_engine_that_serves_without_a_key_is_taken_back(place: Place) -> None:
    back = place.apply("run-1", SLOW, little_open=True)
    assert "vllm serves without a key (a request without it is answered); it must be started with VLLM_API_KEY" in back.why


@pytest.mark.parametrize("service", ["whisper", "vllm"])
def test_without_a_key_nothing_is_applied(place: Place, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = getattr(place.config.promote, service)
    name, where.key_env = where.key_env, ""
    with pytest.raises(UserError, match=rf"promote\.{service}\.key_env: is empty"):
        place.apply("run-1", SLOW)
    where.key_env = name
    monkeypatch.setenv(name, "")
    with pytest.raises(UserError, match=rf"promote\.{service}\.key_env={name}: the key is missing, .*Put {name}=KEY into .*secrets\.env"):
        place.apply("run-1", SLOW)
    assert not (place.root / "etc" / "whisper.yaml").exists()


@BOTH
def test_keys_come_from_the_secrets_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    (place.root / "etc").mkdir()
    (place.root / "etc" / "secrets.env").write_text("".join(f"{name}='{key}'\n" for name, key in KEYS.items()))
    assert place.apply("run-1", SLOW) is None


def test_a_file_that_only_its_owner_may_read_stays_so_and_so_do_its_copies(place: Place) -> None:
    own = place.root / "etc" / "vllm.yaml"
    own.parent.mkdir()
    own.write_text("api-key: of-the-house\n")
    own.chmod(0o600)
    assert place.apply("run-1", SLOW) is None
    assert own.stat().st_mode & 0o777 == 0o600
    place.deployer().rollback()
    assert (own.read_text(), own.stat().st_mode & 0o777) == ("api-key: of-the-house\n", 0o600)
    for path in (path for path in place.root.rglob("*") if path.is_file() and "of-the-house" in path.read_text(errors="replace")):
        assert any(each.stat().st_mode & 0o077 == 0 for each in (path, *path.parents) if place.root in each.parents), path


def test_two_cannot_apply_at_once(place: Place) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with Installation(folder_of(place.config.promote)).locked():
            held.set()
            go.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    try:
        with pytest.raises(UserError, match=rf"another promote \(process {os.getpid()}\) is changing"):
            place.apply("run-1", SLOW)
    finally:
        go.set()
        other.join()


def test_a_target_that_was_changed_since_the_review_is_left_alone(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    config, target = place.config, target_of(place.config.promote)
    services = services_of(config, FAST, "cpu")
    bundle = bundle_of(services, target, folder_of(config.promote))
    folder = place.root / "promotions" / "run-2"
    folder.mkdir(parents=True)
    (folder / "gate.json").write_text("{}")
    manifest = write_bundle(folder, bundle, bundle, {"run_id": "run-2"})
    diff = (folder / "changes.diff").read_text()
    assert "-model: " in diff
    assert "+model: " in diff
    (place.root / "etc" / "whisper.yaml").write_text("by hand")
    with pytest.raises(UserError, match=r"whisper\.yaml: changed since this promotion was written"):
        place.deployer(services).apply("run-2", "experiment", services, bundle.installable, manifest["before"], None)
    assert place.installed("whisper.yaml") == "by hand"


def test_the_rollback_script_puts_back_what_was_there(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    assert place.apply("run-2", FAST) is None
    first = {process.pid for process in place.processes()}
    script = folder_of(place.config.promote) / "promotions" / "run-2" / "rollback.sh"
    assert not list((place.root / "promotions").rglob("rollback.sh")), "nobody but who installs writes what root runs"
    subprocess.run([str(script)], check=True, timeout=60)
    assert "base" in place.installed("whisper.yaml")
    wait_until(lambda: len({process.pid for process in place.processes()} - first) == 2)


def wait_until(holds: Callable[[], bool]) -> None:
    """The test's own time-out ends it."""
    while not holds():
        pass


def test_a_target_without_permission_is_one_line(place: Place) -> None:
    place.config.promote.install_dir = "/proc/tune-gpu"
    with pytest.raises(UserError, match=r"/proc/tune-gpu: /proc: .*Run promote as a user that may"):
        place.apply("run-1", SLOW)


@SYSTEMD
def test_a_unit_that_systemd_does_not_know_is_named(place: Place) -> None:
    with pytest.raises(UserError, match=r"unit other\.service: No files found"):
        target_of(place.config.promote).check(["other.service"])


@SYSTEMD
def test_systemd_is_asked_for_as_little_as_needed_and_in_order(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    calls = [line.split() for line in (place.root / "units" / "calls").read_text().splitlines()]
    changing = [call for call in calls if call[0] in ("daemon-reload", "stop", "start")]
    assert changing == [
        ["daemon-reload"],  # before it is asked what it would start
        ["daemon-reload"],
        ["stop", "vllm.service"],
        ["stop", "whisper.service"],
        ["start", "--no-block", "whisper.service"],
        ["start", "--no-block", "vllm.service"],
    ]
    drop_in = (place.root / "units" / "vllm.service.d" / "50-tune-gpu.conf").read_text()
    assert "\nExecStart=\nExecStart=" in drop_in, "the unit's own command is replaced, not added to"
    assert f"EnvironmentFile=-{place.root / 'etc' / 'secrets.env'}" in drop_in
    assert "After=whisper.service" in drop_in
    assert "CPUAffinity=0" in drop_in
