"""`tune-gpu plan` prints the traffic of a space of sessions in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tune_gpu.cli.main import main


def plan(tmp_path: Path, *options: str, context: int = 2048, **traffic: Any) -> str:
    content = {
        "name": "s", "services": {"llm": {"kind": "vllm", "model": "demo-llm", "max_model_len": context}}, "objective": {"weights": {"llm.ttft": 1.0}},
        "parameters": {"seqs": {"target": "llm.max_num_seqs", "values": [1, 2]}},
        "traffic": {"kind": "sessions", "turn": ["llm"], "window_s": 20, "max_tokens": 16, "arrivals": {"sessions_per_min": 30}, **traffic},
    }  # fmt: skip
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(content), encoding="utf-8")
    done = CliRunner().invoke(main, ["plan", str(space), "device=cpu", *options])
    assert done.exit_code in (0, 1), done.output
    return done.output


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.json"
    entries = [{"conversations": [{"from": "human", "value": f"Question {n}?"}, {"from": "gpt", "value": "Yes."}] * 3} for n in range(30)]
    path.write_text(json.dumps([*entries, {"conversations": []}]), encoding="utf-8")
    return str(path)


def test_profiles_rates_turns_and_prompts_are_printed(tmp_path: Path, own: str) -> None:
    profiles = {"home": {"share": 3, "turns": 4, "system_prompt": {"tokens": 100, "per_session_tokens": 20}}, "work": {"source": own}}
    output = plan(tmp_path, "--trust", profiles=profiles)
    assert "traffic: 30 sessions/min (poisson), about " in output
    assert "37.5 turns expected per window of 20 s" in output, "10 sessions of 3 * 4 / 4 + 3 / 4 turns"
    assert "home 75 %: 24 built-in requests, 4.0 turns per session, system prompt of about 120 tokens, prompts of about " in output
    assert "conversations, 3.0 turns per session, no system prompt of its own" in output
    assert "75 % of the sessions are synthetic: built-in words that no user of yours has said" in output
    assert "1 conversation not used: without a turn of the user (the first: conversation 31)" in output
    assert "max_model_len" not in output


def test_a_context_that_is_too_short_is_said_and_nothing_is_cut(tmp_path: Path) -> None:
    output = plan(tmp_path, context=512, profiles={"home": {"system_prompt": {"tokens": 600}}})
    assert "llm.max_model_len=512: prompts of about " in output
    assert "fail as llm_context_too_long" in output


def test_files_that_somebody_else_names_are_not_read_without_trust(tmp_path: Path, own: str) -> None:
    output = plan(tmp_path, profiles={"work": {"source": own}})
    assert "traffic: " not in output
    assert "needs --trust: traffic.profiles.work.source: it names a file, which would be sent to the services" in output


def test_the_plan_for_machines_has_the_traffic(tmp_path: Path) -> None:
    found = json.loads(plan(tmp_path, "--json", profiles={"home": {}}))["traffic"]
    assert found["sessions_per_min"] == 30.0
    assert [profile["name"] for profile in found["profiles"]] == ["home"]
