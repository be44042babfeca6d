"""The hash of a traffic is of what is sent: settings and content, not places, names of files, or how long is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_gpu.config.loader import config_of, load_config
from tune_gpu.workload.traffic_hash import planned_hash

LINES = [{"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": "Yes."}]} for n in range(40)]


def own_data(path: Path, lines: list[Any] = LINES) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def hash_of(tmp_path: Path, *overrides: str, **traffic: Any) -> str | None:
    content = {
        "name": "s", "services": {"llm": {"kind": "vllm"}, "other": {"kind": "vllm"}}, "parameters": {}, "objective": {"weights": {"llm.ttft": 1.0}},
        "traffic": {"turn": ["llm"], **traffic},
    }  # fmt: skip
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(content), encoding="utf-8")
    return planned_hash(load_config(str(space), list(overrides), trust=True))


def sessions(tmp_path: Path, *overrides: str, source: Path | None = None) -> str | None:
    return hash_of(tmp_path, *overrides, kind="sessions", profiles={"p": {"source": str(source or own_data(tmp_path / "a.jsonl")), "turns": 3}})


def test_a_hash_has_16_digits_and_is_the_same_again(tmp_path: Path) -> None:
    for found in (hash_of(tmp_path), sessions(tmp_path)):
        assert found is not None
        assert len(found) == 16
        assert int(found, 16) >= 0
    assert hash_of(tmp_path) == hash_of(tmp_path) != sessions(tmp_path) == sessions(tmp_path)


@pytest.mark.parametrize(
    "override",
    ["traffic.profiles.p.turns=4", "traffic.profiles.q={}", "traffic.arrivals.sessions_per_min=7", "traffic.half=all", "traffic.history=own", "traffic.turn_taking.barge_in=0.1",
     "traffic.turn=[other]", "traffic.profiles.p.system_prompt.text=Hello"],
)  # fmt: skip
def test_a_setting_of_what_is_sent_changes_the_hash(tmp_path: Path, override: str) -> None:
    assert sessions(tmp_path, override) != sessions(tmp_path)


@pytest.mark.parametrize("override", ["traffic.windows=7", "traffic.window_s=3", "traffic.request_timeout_s=9", "traffic.capacity_step_s=0", "search.seed=5", "services.llm.max_num_seqs=3"])
def test_how_long_is_measured_and_what_serves_does_not(tmp_path: Path, override: str) -> None:
    assert sessions(tmp_path, override) == sessions(tmp_path)
    assert hash_of(tmp_path, override) == hash_of(tmp_path)


def test_the_content_counts_and_not_its_place(tmp_path: Path) -> None:
    moved = own_data(tmp_path / "elsewhere" / "b.jsonl")
    assert sessions(tmp_path, source=moved) == sessions(tmp_path)
    own_data(moved, [*LINES[:-1], *({"messages": [{"role": "user", "content": f"Another {n}?"}]} for n in range(20))])
    assert sessions(tmp_path, source=moved) != sessions(tmp_path)
    texts = own_data(tmp_path / "texts.txt")
    assert hash_of(tmp_path, f"traffic.texts.source={texts}") != hash_of(tmp_path)


def test_a_recorded_configuration_has_the_hash_of_the_space(tmp_path: Path) -> None:
    from dataclasses import asdict

    sessions(tmp_path)
    config = load_config(str(tmp_path / "space.yaml"), [], trust=True)
    assert planned_hash(config_of(asdict(config))) == planned_hash(config)
