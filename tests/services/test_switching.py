"""Real services of three kinds: a candidate that differs in one of them restarts that one, and the artifacts record it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Status
from tune_gpu.search.order import fewest_starts, starts
from tune_gpu.services.deployment import start_key
from tune_gpu.testing import fake_server

pytestmark = pytest.mark.services

SPACE = f"""
name: three
services:
  stt: {{kind: faster-whisper, model: tiny.en, compute_type: int8, cpu_threads: 0, cpu_cores: "0"}}
  llm:
    kind: command
    command: [{sys.executable}, -P, {fake_server.__file__}, "{{port}}", "{{settings.latency_ms}}"]
    health: /health
    api: openai-chat
    model: fake
    settings: {{latency_ms: 1}}
    stop_grace_s: 0.5
  tts:
    kind: command
    command: [{sys.executable}, -m, tune_gpu.testing.speech_server, --host, "{{host}}", --port, "{{port}}", --voice, "{{settings.voice}}"]
    health: /health
    api: openai-speech
    model: hibari
    settings: {{voice: heart}}
    env: {{SPEECH_NICE: "0"}}
parameters:
  beam: {{target: stt.beam_size, values: [1, 2]}}
  latency: {{target: llm.settings.latency_ms, values: [1, 5]}}
  nice: {{target: tts.env.SPEECH_NICE, values: ["0", "1"], kind: categorical}}
objective: {{weights: {{llm.latency: 1.0}}}}
traffic: {{turn: [stt, llm, tts], turn_rate_per_s: 4.0, window_s: 0.5, max_tokens: 4, warmup_turns: 1, capacity_step_s: 0}}
run: {{preflight: false, memory_stable_samples: 1}}
"""
FIRST: Mapping[str, Any] = {"beam": 1, "latency": 1, "nice": "0"}


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    path = tmp_path / "three.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return load_config(str(path), [], "cpu", trust=True)


@pytest.fixture
def evaluator(config: ExperimentConfig) -> Iterator[Evaluator]:
    evaluator = Evaluator(config, "cpu")
    yield evaluator
    evaluator.close()


def started(evaluator: Evaluator, params: Mapping[str, Any]) -> set[str]:
    """Return the services that an evaluation started, by what its line records."""
    found = evaluator.evaluate(params)
    assert found.status is Status.OK, found.failure
    parts = found.timings.durations().start_by_part
    assert parts is not None
    assert {"stt", "llm", "tts"} <= parts.keys(), "0.0 for one that was kept, not absent"
    return {name for name in ("stt", "llm", "tts") if parts[name] > 0.0}


@pytest.mark.soak  # the kinds that are kept are in the gate: tests/unit/evaluation/test_command_evaluation.py
def test_a_candidate_that_differs_in_one_service_restarts_that_one(evaluator: Evaluator) -> None:
    """faster-whisper is none that is kept: it starts anew for every candidate."""
    assert started(evaluator, FIRST) == {"stt", "llm", "tts"}
    assert started(evaluator, {**FIRST, "latency": 5}) == {"stt", "llm"}
    assert started(evaluator, {**FIRST, "latency": 5, "nice": "1"}) == {"stt", "tts"}
    assert started(evaluator, {**FIRST, "latency": 5, "nice": "1", "beam": 2}) == {"stt"}


def test_a_generation_is_ordered_by_the_services_that_it_shares(config: ExperimentConfig) -> None:
    members = [{**FIRST, "latency": latency, "nice": nice} for latency, nice in ((5, "1"), (1, "0"), (5, "0"), (1, "1"))]
    order = fewest_starts(members, lambda params: start_key(config, params), start_key(config, FIRST))
    keys = [start_key(config, params) for params in (FIRST, *order)]
    assert [sum(starts(before, after)) for before, after in pairwise(keys)] == [0, 1, 1, 1], "one service between any two"
