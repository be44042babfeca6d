"""A space with a command and an external service: what is wrong is one line with its key, and a foreign one needs trust."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tune_gpu.artifacts.redaction import Redactor, restore_secrets
from tune_gpu.artifacts.run_folder import redacted_yaml
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.config.foreign import needs_trust
from tune_gpu.config.loader import as_yaml, load_config, load_settings
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.space_check import check_space, services_in_use
from tune_gpu.services.registry import services_of

SPACE = """
services:
  llm: {kind: vllm, model: demo-llm}
  tts:
    kind: command
    command: [PYTHON, server.py, --port, "{port}", --voice, "{settings.voice}"]
    health: /health
    api: openai-speech
    model: tts
    settings: {voice: heart, speed: 1.5}
    env: {TTS_API_KEY: "{key}", SPEED: "{settings.speed}"}
    gpus: 0
  other: {kind: external, url: "http://127.0.0.1:8000", key_env: OTHER_KEY}
parameters:
  share: {target: llm.gpu_memory_utilization, values: [0.1, 0.2]}
  voice: {target: tts.settings.voice, values: [heart, bella]}
  threads: {target: tts.env.OMP_NUM_THREADS, values: ["1", "2"]}
""".replace("PYTHON", sys.executable)


def written(folder: Path, text: str = SPACE) -> str:
    path = folder / "space.yaml"
    path.write_text(text)
    return str(path)


def test_a_command_and_an_external_are_services_of_a_space(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), [], "cpu", trust=True)
    assert [(service.name, service.kind.name) for service in services_of(config.services)] == [("llm", "vllm"), ("tts", "command"), ("other", "external")]
    assert check_space(config).size == 8
    changed = settings_with(config, {"share": 0.1, "voice": "bella", "threads": "2"})
    assert changed["tts"].settings == {"voice": "bella", "speed": 1.5}
    assert changed["tts"].env["OMP_NUM_THREADS"] == "2"
    assert config.services["tts"].settings["voice"] == "heart"
    keys = {service.reuse_key for settings in (config.services, changed) for service in services_of(settings) if service.name == "tts"}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"{port}"', "{port}", 'services.tts.command.3: a mapping instead of a text. To use a placeholder, put it in quotes: "{port}".'),
        ('"{settings.speed}"', "{settings.speed}", 'services.tts.env.SPEED: a mapping instead of a text. To use a placeholder, put it in quotes: "{settings.speed}"'),
        ("    health: /health\n", "", "services.tts.health: missing. Set the path"),
        ('"{settings.voice}"', '"{settings.vioce}"', "nothing fills {settings.vioce} (did you mean voice?)"),
        ('SPEED: "{settings.speed}"', "SPEED: fast", "services.tts.settings.speed: changes nothing"),
        ("speed: 1.5", "speed: null", "services.tts.settings.speed=null: cannot fill a placeholder"),
        ("api: openai-speech", "api: openai-voice", "services.tts.api=openai-voice: not allowed"),
        ('command: [', "command: my-tts --port 1 #[", "services.tts.command=my-tts --port 1: not a list"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "services.other.url=127.0.0.1:8000: not an address"),
        ("key_env: OTHER_KEY", "key: hunter2", "services.other.key: no such key (did you mean key_env?)"),
        ("target: tts.settings.voice", "target: tts.settings", "it is a mapping. Name one entry of it, tts.settings.NAME"),
        ("values: [heart, bella]", "values: [heart, null]", "cannot fill a placeholder"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_starts(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = SPACE.replace(old, new)
    assert text != SPACE
    with pytest.raises(UserError) as raised:
        check_space(load_config(written(tmp_path, text), [], "cpu", trust=True))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_knob_that_no_placeholder_uses_is_refused(tmp_path: Path) -> None:
    text = SPACE.replace("target: tts.settings.voice", "target: tts.settings.vioce")
    config = load_config(written(tmp_path, text), [], "cpu", trust=True)
    wrong = next(service for service in services_in_use(config, check_space(config)) if "vioce" in getattr(service.settings, "settings", {}))
    with pytest.raises(UserError, match=r"services\.tts\.settings\.vioce: changes nothing, because no \{settings\.vioce\} stands in command or env"):
        wrong.kind.check(wrong.name, wrong.settings, local=False)


def test_a_foreign_space_needs_trust_for_what_is_run_and_where_keys_go(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"services\.tts\.command: it is a program that is started here, and \d more.*--trust"):
        load_config(written(tmp_path), [], "cpu")
    config = load_config(written(tmp_path), [], "cpu", trust=True)
    assert [each.key for each in needs_trust(config, {})] == [
        "services.tts.command", "services.tts.env", "services.tts.settings", "services.other.url", "services.other.key_env", "parameters.voice", "parameters.threads",
    ]  # fmt: skip


def test_the_placeholder_of_a_key_survives_the_run_folder(tmp_path: Path) -> None:
    """Resume a run: the key of a server is made anew for each start, so the user is not asked for it."""
    config = load_config(written(tmp_path), [], "cpu", trust=True)
    text = redacted_yaml(as_yaml(config), Redactor(config, {}))
    assert "{key}" in text
    again = load_config(written(tmp_path, text), [], "cpu", trust=True)
    restore_secrets(again)
    assert again.services["tts"].env["TTS_API_KEY"] == "{key}"


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "SERVICES.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    spaces = [example for example in examples if example.startswith("services:")]
    assert len(spaces) == 2
    for example in spaces:
        config = load_config(written(tmp_path, example), [], "cpu", trust=True)
        for service in services_of(config.services):
            service.kind.check(service.name, service.settings, local=False)
    (promotion,) = [example for example in examples if example.startswith("promote:")]
    settings = load_settings(Path(written(tmp_path, promotion)), ("promote",), [])
    assert list(settings.promote.services) == ["llm", "tts"]


def test_plan_prints_the_commands_of_a_space(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["plan", written(tmp_path), "--gpu", "RTX 3060", "--trust"])
    assert f"tts runs: {sys.executable} server.py --port '{{port}}' --voice '{{settings.voice}}'" in shown.output
    listed = CliRunner().invoke(main, ["plan", written(tmp_path), "--gpu", "RTX 3060", "--trust", "--json"])
    assert json.loads(listed.output)["commands"] == {"tts": [sys.executable, "server.py", "--port", "{port}", "--voice", "{settings.voice}"]}
