"""A service that uses no card, beside one on a made-up card: real servers, the real evaluation, only NVML is made up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.made_up_cards.cards import Cards, on_card
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation import device_guard
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.testing import fake_server

CARD = "GPU-0c000000-0000-4106-c12f-20bd9faed9f6"
SERVER: dict[str, Any] = {
    "kind": "command", "command": [sys.executable, "-P", fake_server.__file__, "{port}", "1"], "health": "/health", "api": "openai-chat", "model": "fake",
    "stop_grace_s": 0.5,
}  # fmt: skip
SPACE = {
    "services": {"chat": SERVER | {"gpus": 0}, "other": SERVER | {"env": {"MADE_UP_MIB": "2000"}}},
    "parameters": {"patience": {"target": "chat.start_timeout_s", "values": [60.0]}},
    "objective": {"weights": {"chat.latency": 1.0}, "targets": {"chat.latency_ms": 100}},
    "traffic": {
        "turn": ["chat"], "background": {"other": 4.0}, "turn_rate_per_s": 4.0, "max_tokens": 2, "warmup_turns": 1, "windows": 1, "window_s": 1.0,
        "capacity_step_s": 0,
    },
    "telemetry": {"max_invalid_windows": 20},
    "run": {"preflight": False},
}  # fmt: skip


def test_a_service_that_uses_no_card_need_not_prove_it_is_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the load nor during it, while the other service proves both."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", CARD)
    cards = Cards()
    monkeypatch.setattr(device_guard, "open_probe", lambda _kind, card: NvmlProbe(card, cards))
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    evaluator = Evaluator(load_config(str(path), [], "cuda", trust=True), "cuda")
    try:
        measured = evaluator.evaluate({"patience": 60.0})
        assert measured.failure is None
        assert measured.metrics["service_memory_mib"] == {"other": 2000.0}
        assert set(on_card(CARD)) == set(evaluator.running["other"].pids())
    finally:
        evaluator.close()
    assert on_card(CARD) == {}
