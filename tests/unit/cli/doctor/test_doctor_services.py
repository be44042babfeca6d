"""`tune-gpu doctor SPACE`: what the services of a space need, by their kinds, those of other packages among them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tune_gpu.cli.main import main
from tune_gpu.config import kinds
from tune_gpu.services.base import Examined
from tune_gpu.testing import fake_server

FAKE = {"kind": "command", "command": [sys.executable, "-P", fake_server.__file__, "{port}", "1"], "health": "/health"}
PACKAGE = """
from tune_gpu.testing.fake_kind import FakeKind

class Plain:
    name = "plain"
    def missing(self, device):
        return f"plain-server for {device} is not installed. Run pip install plain-server."

class Faulty(FakeKind):
    name = "faulty"
    def examine(self, machine):
        yield from ()
        raise KeyError("a fault of its own")

PLAIN, FAULTY, FAKE = Plain(), Faulty(), FakeKind()
"""


@pytest.fixture
def other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package whose kinds are fine, lack their server, raise an error, or cannot be imported."""
    (tmp_path / "doctored_kinds.py").write_text(PACKAGE)
    info = tmp_path / "doctored_kinds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doctored-kinds\nVersion: 1.0\n")
    points = {"fake": "doctored_kinds:FAKE", "plain": "doctored_kinds:PLAIN", "faulty": "doctored_kinds:FAULTY", "gone": "no_such_module:KIND"}
    (info / "entry_points.txt").write_text("[tune_gpu.services]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (kinds.kind_names, kinds.load_kind, kinds._found):
        cached.cache_clear()


def examined(tmp_path: Path, services: dict[str, Any], *arguments: str, **parameters: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code, and the checks by name."""
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "doctored", "services": services, "parameters": parameters}))
    ended = CliRunner().invoke(main, ["doctor", str(path), "--json", "--trust", f"run.artifacts_dir={tmp_path}", "device=cpu", *arguments])
    assert ended.exit_code in (0, 1), ended.output
    return ended.exit_code, {check["check"]: check for check in json.loads(ended.output)["checks"]}


def test_only_the_services_of_the_space_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command needs no engine: that none is installed is worth knowing, and no failure."""
    monkeypatch.setattr("tune_gpu.services.vllm.examine.version_of", lambda _name: None)
    code, checks = examined(tmp_path, {"tts": FAKE}, tts_cores={"target": "tts.cpu_cores", "values": [None]})
    assert code == 0
    assert (checks["tts"]["level"], checks["tts"]["found"]) == ("ok", f"starts {sys.executable}")
    assert checks["vLLM"]["level"] == "note"
    assert checks["vLLM"]["found"] == "not installed (the space has no service of kind vllm)"
    assert "whisper" not in checks


def test_what_a_service_lacks_fails_by_its_name(tmp_path: Path) -> None:
    services = {"tts": FAKE | {"command": ["no-such-server", "{port}"]}, "other": {"kind": "external", "url": "http://127.0.0.1:9"}, "llm": {"kind": "vllm", "model": "./nowhere"}}
    code, checks = examined(tmp_path, services, tts_cores={"target": "tts.cpu_cores", "values": [None]})
    assert code == 1
    assert {name for name, check in checks.items() if check["level"] == "fail"} == {"tts", "other", "llm"}
    assert "the program no-such-server is not in PATH" in checks["tts"]["found"]
    assert "set its whole path" in checks["tts"]["advice"]
    assert "127.0.0.1:9" in checks["other"]["found"]


def test_a_value_of_a_parameter_is_examined_as_well(tmp_path: Path) -> None:
    code, checks = examined(tmp_path, {"llm": {"kind": "vllm", "model": "demo-llm"}}, model={"target": "llm.model", "values": ["demo-llm", "./nowhere"]})
    assert code == 1
    assert "./nowhere" in checks["llm"]["found"]


@pytest.mark.usefixtures("other_kinds")
def test_a_broken_kind_of_another_package_costs_one_line(tmp_path: Path) -> None:
    code, checks = examined(tmp_path, {"chat": {"kind": "fake"}}, latency={"target": "chat.latency_ms", "values": [1.0]})
    assert code == 0, [check for check in checks.values() if check["level"] == "fail"]
    assert checks["chat"]["level"] == "ok"
    assert {name: checks[f"kind {name}"]["level"] for name in ("plain", "faulty", "gone")} == dict.fromkeys(("plain", "faulty", "gone"), "note")
    assert "a fault of its own" in checks["kind faulty"]["found"]
    assert checks["kind plain"]["advice"] == "Run pip install plain-server"
    assert "no_such_module:KIND cannot be loaded" in checks["kind gone"]["found"]


@pytest.mark.usefixtures("other_kinds")
def test_a_service_of_a_broken_kind_is_one_line_of_invalid_input(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"services": {"chat": {"kind": "gone"}}}))
    ended = CliRunner().invoke(main, ["doctor", str(path), "--trust"])
    assert ended.exit_code == 2
    assert ended.output.startswith("error: ")
    assert "no_such_module:KIND cannot be loaded" in ended.output
    assert ended.output.count("\n") == 1


def test_a_key_is_never_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-0123456789abcdef")
    services = {"other": {"kind": "external", "url": "http://127.0.0.1:9/sk-0123456789abcdef", "key_env": "OTHER_KEY"}, "tts": FAKE}
    _, checks = examined(tmp_path, services, tts_cores={"target": "tts.cpu_cores", "values": [None]})
    assert "sk-0123456789abcdef" not in json.dumps(checks)


def test_every_kind_that_ships_is_examined() -> None:
    shipped = [name for name in kinds.kind_names() if type(kinds.load_kind(name)).__module__.startswith("tune_gpu.services")]
    assert len(shipped) >= 4
    assert all(isinstance(kinds.load_kind(name), Examined) for name in shipped)
