"""The settings of a command: every placeholder is filled, every setting changes something, and every mistake is one line with its key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config import rules
from tune_gpu.services.apis import APIS
from tune_gpu.services.base import LaunchSite
from tune_gpu.services.command.kind import KIND
from tune_gpu.services.command.launch import HELD, arguments, command_environment, key_variables
from tune_gpu.services.command.placeholders import filled, names_in, word
from tune_gpu.services.command.settings import CommandSettings

AT = "services.tts."


def settings(*command: str, **change: Any) -> CommandSettings:
    return CommandSettings(**{"command": list(command) or [sys.executable, "{port}"], "health": "/health", **change})


def problem(wrong: CommandSettings, *, local: bool = False) -> str:
    with pytest.raises(UserError) as raised:
        KIND.check("tts", wrong, local=local)
    text = str(raised.value)
    assert text.startswith(AT)
    assert "\n" not in text
    return text


WRONG: list[tuple[CommandSettings, str]] = [
    (CommandSettings(health="/health"), "services.tts.command: names no program"),
    (settings(" ", "{port}"), "services.tts.command: names no program"),
    (settings("x", "{port}", health=""), "services.tts.health: missing. Set the path"),
    (settings("x", "{port}", health="health"), "services.tts.health=health: not a path"),
    (settings("x", "{port}", health="/a b"), "services.tts.health=/a b: not a path"),
    (settings("x", "{port}", health="/a#b"), "services.tts.health=/a#b: not a path"),
    (settings("x", "{port}", metrics="metrics"), "services.tts.metrics=metrics: not a path"),
    (settings("x", "{prot}"), "services.tts.command[1]={prot}: {prot} is no placeholder (did you mean port?)"),
    (settings("x", "{}"), "services.tts.command[1]={}: {} is no placeholder"),
    (settings("x", "{port:05}"), "services.tts.command[1]={port:05}: its braces enclose no placeholder"),
    (settings("x", "{port!r}"), "services.tts.command[1]={port!r}: its braces enclose no placeholder"),
    (settings("x", "{port.real}"), "{port.real} is no placeholder"),
    (settings("x", "{port[0]}"), "{port[0]} is no placeholder"),
    (settings("x", "{"), "services.tts.command[1]={: its braces enclose no placeholder"),
    (settings("x", "}"), "services.tts.command[1]=}: its braces enclose no placeholder"),
    (settings("x", '{"a": 1}', "{port}"), "write {{ and }} for braces of the text itself"),
    (settings("x", "{port}", "{settings.voice}"), "nothing fills {settings.voice}. Add services.tts.settings.voice"),
    (settings("x", "{port}", "{settings}"), "{settings} is no placeholder"),
    (settings("x", "{port}", "{settings.vioce}", settings={"voice": "a"}), "nothing fills {settings.vioce} (did you mean voice?)"),
    (settings("x", "{port}", "{settings.__class__}"), "nothing fills {settings.__class__}"),
    (settings("x", "{port}", settings={"voice": "a"}), "services.tts.settings.voice: changes nothing, because no {settings.voice}"),
    (settings("x", "{port}", "{settings.v}", settings={"v": None}), "services.tts.settings.v=null: cannot fill a placeholder"),
    (settings("x", "{port}", "{settings.v}", settings={"v": [1]}), "services.tts.settings.v=[1]: cannot fill a placeholder"),
    (settings("x", "{port}", "{settings.v}", settings={"v": "a\0b"}), "cannot fill a placeholder"),
    (settings("x"), "services.tts.command: it has no {port}, and neither has env"),
    (settings("x", "{port}", "--key={key}"), "services.tts.command[2]: every user of the machine can read {key}"),
    (settings("x", "{port}", "--api-key", "hunter2hunter2"), "services.tts.command: a secret, and every user can read a command line"),
    (settings("x", "{port}", "{settings.api_key}", settings={"api_key": "hunter2"}), "a secret, and every user can read a command line"),
    (settings("x", "{port}", "a\0b"), "services.tts.command: has a null character"),
    (settings("x", "{port}", env={"A": "a\0b"}), "services.tts.env.A: has a null character"),
    (settings("x", "{port}", env={"A": "{nothing}"}), "services.tts.env.A={nothing}: {nothing} is no placeholder"),
    (settings("x", "{port}", env={"A=B": "1"}), "services.tts.env.'A=B': not the name of a variable"),
    (settings("x", "{port}", api="openai"), "services.tts.api=openai: not allowed. Set one of openai-chat"),
    (settings("x", "{port}", api="openai-speech"), "services.tts.model: missing. Set the name of the model"),
    (settings("x", "{port}", gpus=-1), "services.tts.gpus=-1: out of range"),
    (settings("x", "{port}", gpus=0, mps_active_thread_pct=50), "services.tts.mps_active_thread_pct: divides a card, and gpus=0 gives it none"),
    (settings("x", "{port}", start_timeout_s=0.0), "services.tts.start_timeout_s=0.0: out of range"),
    (settings("x", "{port}", cpu_cores="zero"), "services.tts.cpu_cores=zero: not a list of cores"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_wrong_settings_are_refused_in_one_line(wrong: CommandSettings, said: str) -> None:
    assert said in problem(wrong)


def test_a_program_that_is_not_here_is_refused_before_the_start(tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\n")
    assert "the program my-tts-9 is not in PATH" in problem(settings("my-tts-9", "{port}"), local=True)
    assert "no shell splits them" in problem(settings("python3 -m server --port {port}"), local=True)
    assert f"{tmp_path} is a folder" in problem(settings(str(tmp_path), "{port}"), local=True)
    assert f"{tmp_path}/none does not exist" in problem(settings(f"{tmp_path}/none", "{port}"), local=True)
    assert f"{script} is not executable. Run chmod +x" in problem(settings(str(script), "{port}"), local=True)
    assert f"Set its whole path, {os.getcwd()}/serve.sh" in problem(settings("./serve.sh", "{port}"), local=True)
    assert "this machine has no core 8000" in problem(settings(sys.executable, "{port}", cpu_cores="8000"), local=True)
    script.chmod(0o755)
    KIND.check("tts", settings(str(script), "{port}"), local=True)
    KIND.check("tts", settings("serve.sh", "{port}", env={"PATH": str(tmp_path)}), local=True)
    KIND.check("tts", settings("my-tts-9", "{port}"), local=False)  # another machine may have it


def test_a_program_of_this_python_environment_is_found_first() -> None:
    found, _ = arguments("tts", settings("python", "{port}"), "127.0.0.1", 1)
    assert Path(found).parent == Path(sys.executable).parent


def test_arguments_and_variables_are_filled() -> None:
    given_ = settings(
        sys.executable, "--at={host}:{port}", "--voice", "{settings.voice}", "--fast={settings.fast}", '{{"speed": {settings.speed}}}',
        settings={"voice": "heart of {gold}; rm -rf *", "fast": True, "speed": 1.5}, env={"PORT": "{port}", "MY_KEY": "{key}", "BOTH": "{{{settings.voice}}}"},
    )  # fmt: skip
    rules.check(given_, AT)
    assert arguments("tts", given_, "127.0.0.1", 81)[1:] == [
        "--at=127.0.0.1:81", "--voice", "heart of {gold}; rm -rf *", "--fast=true", '{"speed": 1.5}',
    ]  # fmt: skip
    measured = command_environment(given_, "cpu", "127.0.0.1", 81, "k", {"TMPDIR": "t"})
    assert measured == {
        "PORT": "81", "MY_KEY": "k", "BOTH": "{heart of {gold}; rm -rf *}", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": "t",
    }  # fmt: skip
    assert key_variables(given_) == ("MY_KEY",)
    assert "MY_KEY" not in command_environment(given_, "cpu", "127.0.0.1", 81)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_with_doubled_braces_stays_itself(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert names_in(doubled) == set()
    assert filled(doubled, {}) == text


@given(st.text(max_size=12, alphabet="{}porthskey.sing![]:0 x"))
def test_a_text_is_filled_or_refused_and_never_raises(text: str) -> None:
    """Whatever the check lets through is filled without an error."""
    tried = settings(sys.executable, "{port}", text)
    try:
        rules.check(tried, AT)
    except UserError:
        return
    assert len(arguments("tts", tried, "127.0.0.1", 1)) == 3


@given(st.dictionaries(st.sampled_from([*HELD, "A", "OMP_NUM_THREADS"]), st.sampled_from(["x", "2"])), st.sampled_from(["cpu", "cuda"]), st.integers(0, 2))
def test_a_measured_environment_differs_in_held_variables_only(users: dict[str, str], device: str, gpus: int) -> None:
    tried = settings(env=users, gpus=gpus)
    measured = command_environment(tried, device, "h", 1, "", {"TMPDIR": "t", "PYTHONUNBUFFERED": "1"})
    deployed = command_environment(tried, device, "h", 1)
    assert {name: value for name, value in measured.items() if name not in HELD} == {name: value for name, value in deployed.items() if name not in HELD}
    assert deployed.items() >= users.items()
    assert measured["TMPDIR"] == "t"
    if device == "cuda" and gpus:
        assert measured["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert "CUDA_VISIBLE_DEVICES" not in measured or "CUDA_VISIBLE_DEVICES" in users  # Ray's own value is kept
    else:
        assert measured["CUDA_VISIBLE_DEVICES"] == ""


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()))
def test_a_number_in_an_argument_is_read_back_as_itself(value: Any) -> None:
    assume("\0" not in str(value))
    shown = word(value)
    assert shown == {True: "true", False: "false"}[value] if isinstance(value, bool) else type(value)(shown) == value


def test_each_api_names_a_protocol_of_a_service_or_none() -> None:
    assert KIND.protocol(settings(api="none")) is None
    assert KIND.protocol(settings(api="openai-speech", model="m")) is Protocol.SPEECH
    assert {*APIS.values()} == {None, *Protocol} - {Protocol.DEVICE, Protocol.TURN}


def test_any_changed_setting_changes_the_reuse_key() -> None:
    changes: list[dict[str, Any]] = [{}, {"health": "/x"}, {"env": {"A": "1"}}, {"gpus": 2}, {"settings": {"a": 1}}, {"settings": {"a": 2}}, {"cpu_cores": "0"}]
    assert len({KIND.reuse_key(settings("x", "{port}", "{settings.a}", **change)) for change in changes}) == len(changes)


def test_what_a_foreign_space_needs_trust_for() -> None:
    assert [name for name, _ in settings().needs_trust()] == ["command"]
    assert [name for name, _ in settings(env={"A": "1"}, settings={"a": 1}).needs_trust()] == ["command", "env", "settings"]


def test_a_deployed_server_is_asked_as_the_measured_one() -> None:
    made = settings(sys.executable, "{port}", "{settings.voice}", api="openai-speech", model="m", settings={"voice": "heart"}, ignore_eos=False)
    endpoint = KIND.launch("tts", made, LaunchSite("cpu", (20000, 29999))).endpoint
    deployed = KIND.deployable("tts", made, "cpu", host="127.0.0.1", port=8880)
    assert (deployed.model, deployed.ignore_eos, deployed.voice) == (endpoint.model, endpoint.ignore_eos, endpoint.voice) == ("m", False, "heart")
