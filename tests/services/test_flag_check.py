"""A flag that vLLM's parser refuses is refused before anything starts, by `plan` too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tune_gpu.cli.plan import plan
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.flag_check import check_flags
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.vllm import flag_check
from tune_gpu.services.vllm.flag_check import refusals

pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own for each test."""
    path = tmp_path / "cache" / "accepted_flags.json"
    monkeypatch.setattr(flag_check, "_store", lambda: path)
    return path


def check(*overrides: str) -> None:
    config = load_config("spica_gpu_allocation", list(overrides), "cpu")
    check_flags(config, check_space(config))


def test_plan_names_the_key_and_the_reason_of_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    knob = "parameters.seed={target: vllm.extra_args.seed, values: [1, many], kind: categorical}"
    done = CliRunner().invoke(plan, ["device=cpu", knob, "baseline.seed=1"])
    assert done.exit_code == 2
    assert done.stderr == "error: parameters.seed=many: vLLM refuses it: argument --seed: invalid int value: 'many'. Change or remove it.\n"
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("what was accepted was asked again"))
    done = CliRunner().invoke(plan, ["device=cpu", knob.replace(", many", ""), "baseline.seed=1"])
    assert done.exit_code == 0, done.output


def test_what_was_refused_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a file that was missing."""
    monkeypatch.setattr(flag_check, "_ask", lambda lines: ["no" if "bad" in line else None for line in lines])
    assert refusals([["good"], ["bad"], ["good"]]) == [None, "no", None]
    monkeypatch.setattr(flag_check, "_ask", lambda lines: [str(line) for line in lines])
    assert refusals([["good"], ["bad"]]) == [None, "['bad']"]


@pytest.mark.parametrize("overrides", [
    (), ("services.vllm.extra_args.seed=1", "ray.address=auto"), ("parameters.context={target: vllm.max_model_len, values: [64, 128]}", "baseline.context=64"),
    ("services.vllm.quantization=awq",),
])  # fmt: skip
def test_where_nothing_can_be_refused_vllm_is_not_imported(overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_check, "refusals", lambda _lines: pytest.fail("the parser was asked"))
    check(*overrides)


def test_without_vllm_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    check("services.vllm.extra_args.no_such=1")


def test_every_value_of_each_knob_is_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the product; and a value under a condition in a candidate that has it."""
    asked: list[list[str]] = []

    def accept(lines: list[list[str]]) -> list[None]:
        asked.extend(lines)
        return [None] * len(lines)

    monkeypatch.setattr(flag_check, "refusals", accept)
    check(
        "parameters.kind={target: vllm.kv_cache_dtype, values: [auto, fp8]}", "baseline.kind=auto",
        "parameters.seed={target: vllm.extra_args.seed, values: [1, 2, 3], when: {kind: [fp8]}}",
    )  # fmt: skip
    assert len(asked) == 1 + 3  # of `kind=auto` there is nothing to refuse
    assert [line[line.index("--seed") + 1] for line in asked if "--seed" in line] == ["1", "1", "2", "3"]
    assert all("fp8" in line for line in asked if "--seed" in line)


@pytest.mark.parametrize(("reason", "overrides", "key"), [
    ("argument --seed: bad", ("services.vllm.extra_args.seed=x",), "services.vllm.extra_args.seed"),
    ("argument --dtype: bad", ("services.vllm.dtype=float32",), "services.vllm.dtype"),
    ("no flag is named", ("services.vllm.dtype=float32",), "services.vllm.extra_args"),
])  # fmt: skip
def test_the_key_is_the_one_that_sets_the_flag(reason: str, overrides: tuple[str, ...], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_check, "refusals", lambda lines: [reason] * len(lines))
    with pytest.raises(UserError, match=rf"^{key}: vLLM refuses it: {reason}\. "):
        check(*overrides)


def test_a_store_that_is_damaged_is_asked_anew(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_check, "_ask", lambda lines: [None] * len(lines))
    store.parent.mkdir()
    for content in ("{", "3", "[1, null]"):
        store.write_text(content)
        assert refusals([["--model", "m"]]) == [None]
    assert len(json.loads(store.read_text())) == 1


def test_a_vllm_that_cannot_be_imported_refuses_nothing(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise RuntimeError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert refusals([["--model", "m"]]) == [None]
    assert not store.exists(), "nothing was accepted"
