"""Output that goes elsewhere than to a modern terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.table import Table
from rich.text import Text

from tests.support.made_run import RUN_ID, made_run
from tests.unit.promote.compared import write_comparison
from tune_gpu.cli.main import main
from tune_gpu.cli.progress import Progress
from tune_gpu.cli.terminal import console_of
from tune_gpu.common.errors import UserError


def ask(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`tune-gpu` with its output in a pipe."""
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | variables
    return subprocess.run([sys.executable, "-m", "tune_gpu.cli.main", *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("arguments", "encoding"), [(("plan", "--gpu", "T4"), "ascii"), (("compare", "--help"), "latin-1")])
def test_a_terminal_without_the_characters_shows_others_in_their_place(arguments: tuple[str, ...], encoding: str) -> None:
    done = ask(*arguments, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout


def test_a_pipe_has_no_width_unless_it_is_given_one() -> None:
    assert "vllm_memory_util" in ask("plan", "device=cpu").stdout
    assert "vllm_memory_util" not in ask("plan", "device=cpu", COLUMNS="40").stdout.split("\n", 1)[1]


def test_what_a_log_says_in_brackets_is_told_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    logged = "[rank0]: no memory; see [/usr/lib] and [bold]"
    console_of().print(logged, soft_wrap=True)
    with Progress(console_of(), 1, []) as progress:
        progress.note(logged)
    assert capsys.readouterr().out.splitlines() == [logged, logged]


@pytest.mark.parametrize("arguments", [("compare", "x", "--budget-s", "nan"), ("promote", "x", "--soak-s", "inf")])
def test_a_number_that_is_not_finite_is_refused(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "is not a finite number" in done.output


COMMANDS = "ok \x1b]52;c;ZXZpbA==\x07\x1b[2K\x9b2J\rgone \u202eesrever"


def test_no_text_of_an_artifact_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (COMMANDS, Text(COMMANDS), Table(COMMANDS, title="none")):
        console_of().print(shown, soft_wrap=True)
    text = capsys.readouterr().out + str(UserError(COMMANDS))
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert text.count("\\x1b]52;c;ZXZpbA==") == 4, "it is shown what was there"


def test_a_report_for_a_terminal_commands_none(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    write_comparison(folder)
    folder.write_json("comparison.json", json.loads((folder.path / "comparison.json").read_text()) | {"sentence": COMMANDS})
    shown = CliRunner().invoke(main, ["report", RUN_ID, "--format", "md", f"run.artifacts_dir={tmp_path}"])
    assert shown.exit_code == 0, shown.output
    assert "\\x1b\\]52" in shown.output
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown.output)
