"""Services of any kind are deployed, in the order of their memory, and taken away again: two chat servers of the user's own beside one that
runs already."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.unit.promote.test_apply import free_ports, make_systemd, wait_until
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import kill_and_wait
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig, ServiceTarget
from tune_gpu.promote import recovery_unit
from tune_gpu.promote.apply import Deployer, folder_of, target_of
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.bundle import before_of, bundle_of
from tune_gpu.promote.installed import Installation
from tune_gpu.promote.live_turns import LiveTurns
from tune_gpu.promote.places import targets_of
from tune_gpu.promote.render import not_deployed, services_of
from tune_gpu.promote.settings import ignored, trusted_settings
from tune_gpu.promote.watch import Watcher
from tune_gpu.services import registry
from tune_gpu.services.readiness import answers
from tune_gpu.testing import fake_server

SERVER = str(Path(fake_server.__file__))
CHAT: dict[str, Any] = {
    "kind": "command", "command": [sys.executable, "-P", SERVER, "{port}", "{settings.latency_ms}"], "health": "/health", "api": "openai-chat",
    "model": fake_server.MODEL, "settings": {"latency_ms": 1}, "gpus": 0,
}  # fmt: skip
UNITS = ["tune-gpu-reader.service", "tune-gpu-writer.service"]
"""The units in the order in which they start."""


class Fleet:
    """A space of services and a place to deploy them to."""

    def __init__(self, config: ExperimentConfig, root: Path) -> None:
        self.config, self.root = config, root

    def apply(self, run_id: str, latency: float, turn_ms: float | None = None) -> Any:
        services = services_of(self.config, {"latency": latency}, "cpu")
        bundle = bundle_of(services, target_of(self.config.promote), folder_of(self.config.promote))
        watcher = Watcher(self.config.promote, LiveTurns.of(self.config, services))
        return self.deployer(watcher).apply(run_id, "experiment", services, bundle.installable, before_of(bundle), turn_ms)

    def deployer(self, watcher: Watcher | None = None) -> Deployer:
        """After an apply: by the places in the state on disk."""
        last = Installation(folder_of(self.config.promote)).peek()
        places = last.places if last and not watcher else [service.place for service in services_of(self.config, {"latency": 1}, "cpu")]
        audit = Audit(self.root / "audit.jsonl", {"run_id": "run"})
        return Deployer.of(self.config.promote, places, watcher or Watcher(self.config.promote), audit)

    def audited(self, *steps: str) -> list[tuple[str, str]]:
        lines = map(json.loads, (self.root / "audit.jsonl").read_text().splitlines())
        return [(line["step"], line.get("unit") or line.get("service")) for line in lines if line["step"] in steps]

    def running(self) -> list[str]:
        target = target_of(self.config.promote)
        return [unit for unit in UNITS if target.is_running(unit)]


@pytest.fixture(scope="module")
def there() -> Iterator[str]:
    """The address of a server that runs already."""
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, SERVER, str(port), "1"], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}"
        process.kill()


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path, there: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """The writer reserves its memory, and stands first in the space; the reader's memory grows."""
    space = {
        "name": "fleet",
        "services": {
            "writer": CHAT | {"reserves": True},
            "reader": CHAT,
            "other": {"kind": "external", "url": there, "api": "openai-chat"},
        },
        "parameters": {"latency": {"target": "writer.settings.latency_ms", "values": [1, 2]}},
        "traffic": {"turn": ["other", "writer"], "max_tokens": 2},
    }
    config = load_config(str(written(tmp_path, space)), [], "cpu", trust=True)
    ports = free_ports(2)
    kind = getattr(request, "param", "process")
    targets = {name: ServiceTarget(url=f"http://127.0.0.1:{port}") for name, port in zip(("writer", "reader"), ports, strict=True)}
    promote = replace(
        config.promote, target=kind, install_dir=str(tmp_path / "etc"), systemd_dir=str(tmp_path / "units"), services=targets,
        health_deadline_s=20.0, probes=1,
    )  # fmt: skip
    fleet = Fleet(replace(config, promote=promote), tmp_path)
    if kind == "systemd":
        make_systemd(tmp_path, UNITS, monkeypatch)
    yield fleet
    target = target_of(promote)
    kill_and_wait([pid for unit in UNITS for pid in target.pids(unit)])


def written(folder: Path, space: dict[str, Any]) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space, sort_keys=False))
    return path


@pytest.mark.parametrize("fleet", ["process", "systemd"], indirect=True)
def test_services_that_reserve_start_last_and_stop_first(fleet: Fleet, there: str) -> None:
    assert not_deployed(fleet.config, services_of(fleet.config, {}, "cpu")) == ["other"]
    assert fleet.apply("run-1", 2) is None
    assert fleet.apply("run-2", 1) is None
    reader, writer = UNITS
    assert fleet.running() == [reader, writer]
    assert fleet.audited("stop", "start")[-4:] == [("stop", writer), ("stop", reader), ("start", reader), ("start", writer)]
    assert fleet.audited("compare")[-2:] == [("compare", "reader"), ("compare", "writer")]
    install = folder_of(fleet.config.promote)
    assert sorted(path.name for path in install.glob("*.*") if path.is_file()) == ["reader.env", "writer.env"], "no program here reads a file"
    change, back = fleet.deployer().rollback()
    assert ([place.name for place in change.places], back.serving) == (["reader", "writer"], True)
    assert "latency=2" in (install / "writer.env").read_text()
    assert fleet.audited("stop", "start")[-4:] == [("stop", writer), ("stop", reader), ("start", reader), ("start", writer)]
    assert fleet.deployer().rollback()[1].serving
    if fleet.config.promote.target == "process":
        assert fleet.running() == [], "they did not run before"
    assert answers(f"{there}/health"), "what ran already is left alone"


class Killed(BaseException):
    """Stands for a power cut."""


def cut_off(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply twice; the second is cut off at its end."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    assert fleet.apply("run-1", 2) is None
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "probe", killed)
        patch.setattr("tune_gpu.promote.restore.Restorer.put_back", killed)
        with pytest.raises(Killed):
            fleet.apply("run-2", 1)


@pytest.mark.parametrize("fleet", ["systemd"], indirect=True)
def test_a_boot_puts_back_the_files_of_any_set(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(fleet, monkeypatch)
    install, unit = folder_of(fleet.config.promote), fleet.root / "units" / recovery_unit.NAME
    assert f"Before={' '.join(UNITS)}" in unit.read_text(), "both start after it"
    booted = CliRunner().invoke(main, ["promote", "--recover", "--at-boot", f"promote.install_dir={install}"])
    assert booted.exit_code == 0, booted.output
    assert "latency=2" in (install / "writer.env").read_text()
    assert not unit.exists()


def test_a_set_of_services_recovers_from_the_state_on_disk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(fleet, monkeypatch)
    fleet.config = replace(fleet.config, promote=replace(fleet.config.promote, services={}))
    ended = fleet.deployer().recover()
    assert ended is not None
    assert (ended[0].run_id, ended[1].serving) == ("run-2", True)
    assert [place.unit for place in ended[0].places] == UNITS
    assert "latency=2" in (folder_of(fleet.config.promote) / "writer.env").read_text()


def test_turns_of_the_space_that_are_too_slow_are_undone(fleet: Fleet) -> None:
    back = fleet.apply("run-1", 2, turn_ms=0.001)
    assert "live turns take" in back.why


def test_a_service_that_no_turn_passes_is_asked_by_its_own_protocol(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.config.services.reader, "api", "openai-embeddings")
    assert "reader does not answer a request (http_404)" in fleet.apply("run-1", 2).why


def test_a_server_that_does_not_ask_for_its_key_is_undone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", "of-a-test")
    monkeypatch.setattr(fleet.config.services.writer, "env", {"WRITER_KEY": "{key}"})
    back = fleet.apply("run-1", 2)
    assert "writer serves without a key (a request without it is answered); it must be started with WRITER_KEY" in back.why


def test_a_key_is_required_where_others_reach_the_service(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.config.promote.services["reader"].url = "http://0.0.0.0:8000"
    with pytest.raises(UserError, match=r"promote\.services\.reader\.url=http://0\.0\.0\.0:8000: reader asks for no key, so it would answer everybody"):
        fleet.apply("run-1", 1)
    fleet.config.promote.services["reader"].url = ""
    monkeypatch.setattr(fleet.config.services.writer, "env", {"WRITER_KEY": "{key}"})
    with pytest.raises(UserError, match=r"promote\.services\.writer\.key_env=WRITER_KEY: the key is missing"):
        fleet.apply("run-1", 1)


@pytest.mark.parametrize(("given", "why"), [
    ({"writr": {}}, r"promote\.services\.writr: the run has no such service \(did you mean writer\?\)"),
    ({"other": {"unit": "x.service"}}, r"promote\.services\.other: it runs already, so it is not deployed"),
    ({"writer": {"model": "another"}}, r"promote\.services\.writer\.model=another: writer names its model itself \(fake\)"),
    ({"writer": {"unit": "tune-gpu-reader.service"}}, r"promote\.services\.writer\.unit=tune-gpu-reader\.service: the same unit as that of reader"),
    ({"writer": {"url": "http://127.0.0.1:9000"}, "reader": {"url": "http://localhost:9000"}}, r"writer\.url=.*: the same address as that of reader"),
    ({"writer": {"url": "http://127.0.0.1:9000"}, "reader": {"url": "http://0.0.0.0:9000"}}, r"writer\.url=.*: the same address as that of reader"),
])  # fmt: skip
def test_a_target_that_cannot_be_is_named(fleet: Fleet, given: dict[str, dict[str, Any]], why: str) -> None:
    services = {name: ServiceTarget(**target) for name, target in given.items()}
    config = replace(fleet.config, promote=replace(fleet.config.promote, services=services))
    with pytest.raises(UserError, match=why):
        services_of(config, {}, "cpu")


def test_addresses_that_are_not_given_are_free_ports_in_order(fleet: Fleet, there: str) -> None:
    fleet.config.promote.services = {"reader": ServiceTarget(url="http://127.0.0.1:8000")}
    assert [service.place.url for service in services_of(fleet.config, {}, "cpu")] == ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]
    fleet.config.promote.services = {"reader": ServiceTarget(url=there)}
    with pytest.raises(UserError, match="the same address as that of other"):
        services_of(fleet.config, {}, "cpu")


def test_a_run_of_services_that_all_run_already_has_nothing_to_deploy(tmp_path: Path, there: str) -> None:
    space = {"name": "fleet", "services": {"other": {"kind": "external", "url": there, "api": "openai-chat"}}}
    config = load_config(str(written(tmp_path, space)), [], "cpu", trust=True)
    with pytest.raises(UserError, match=r"services: all run already \(other\), so there is nothing to deploy"):
        services_of(config, {}, "cpu")


def test_targets_of_the_run_itself_are_named_as_ignored(fleet: Fleet) -> None:
    ours = replace(fleet.config, promote=replace(fleet.config.promote, services={}))
    theirs = replace(ours, promote=replace(ours.promote, services={"writer": ServiceTarget(unit="ssh.service")}))
    assert ignored(theirs, ours) == ["promote.services.writer.unit=ssh.service"]


def test_a_line_break_in_an_argument_gets_into_no_unit(fleet: Fleet) -> None:
    fleet.config.services.writer.settings["latency_ms"] = "1\nExecStart=/bin/sh"
    with pytest.raises(UserError, match=r"services\.writer\.command"):
        services_of(fleet.config, {}, "cpu")


def test_another_program_starts_with_the_measured_arguments(fleet: Fleet) -> None:
    """A wrapper of the user's, for example."""
    fleet.config.promote.services["writer"].command = ["/usr/bin/nice", sys.executable]
    writer = services_of(fleet.config, {"latency": 2}, "cpu")[-1]
    assert writer.command == ("/usr/bin/nice", sys.executable, "-P", SERVER, writer.place.url.rpartition(":")[2], "2")


def test_a_service_of_the_default_pair_keeps_its_place_beside_others(tmp_path: Path) -> None:
    space: dict[str, Any] = {"name": "fleet", "services": {"writer": CHAT, "vllm": {"kind": "vllm"}, "whisper": CHAT}, "traffic": {"turn": ["writer", "vllm"]}}
    config = load_config(str(written(tmp_path, space)), ["promote.services.vllm.key_env=MINE"], "cpu", trust=True)
    targets = targets_of(config.promote, registry.services_of(config.services))
    assert {name: (target.unit, target.url, target.key_env) for name, target in targets.items()} == {
        "writer": ("tune-gpu-writer.service", "http://127.0.0.1:8001", ""),
        "vllm": ("vllm.service", "http://127.0.0.1:8000", "MINE"),
        "whisper": ("tune-gpu-whisper.service", "http://127.0.0.1:8002", ""),
    }
    config.promote.served_model_name = "mine"
    assert targets_of(config.promote, registry.services_of(config.services))["vllm"].model == "mine"
    del space["services"]["vllm"]
    others = load_config(str(written(tmp_path, space)), ["traffic.turn=[writer]"], "cpu", trust=True)
    with pytest.raises(UserError, match=r"promote\.served_model_name=mine: names the model of the default pair\. Set promote\.services\.NAME\.model"):
        targets_of(replace(config.promote, services={}), registry.services_of(others.services))


def test_targets_come_from_the_systems_own_file(tmp_path: Path) -> None:
    file = tmp_path / "promote.yaml"
    file.write_text("promote: {services: {llm: {unit: llm.service, url: 'http://127.0.0.1:9000'}}}")
    promote = trusted_settings(["promote.services.tts.key_env=TTS_KEY"], str(file)).promote
    assert (promote.services["llm"].unit, promote.services["tts"].key_env) == ("llm.service", "TTS_KEY")
    for wrong, why in (("unit=llm", r"promote\.services\.llm\.unit=llm: without its ending"), ("url=here", r"promote\.services\.llm\.url=here: not an address")):
        with pytest.raises(UserError, match=why):
            trusted_settings([f"promote.services.llm.{wrong}"], str(file))
