"""Where comparisons and soaks are measured: whether there is such a place."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.unit.telemetry.fake_nvml import FakeNvml, Frame
from trainables import arena as module
from trainables.arena import Arena, ArenaLost, arena
from tune_gpu.config import ExperimentConfig, PromoteSettings
from tune_gpu.promote.evidence import target_device
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.resources import most_cards


def test_where_no_node_has_what_a_comparison_takes_it_ends_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A winner on two cards, compared or promoted on a machine with one: Ray keeps an actor that fits nowhere pending for ever."""
    one, gone = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    monkeypatch.setattr(module.ray, "nodes", lambda: [one, gone])
    monkeypatch.setattr(module.ray, "remote", lambda _actor: pytest.fail("an actor was asked for"))
    with pytest.raises(ArenaLost, match=r"no node has all that it takes \(CPU 2, GPU 2\)"), arena(ExperimentConfig(), "cuda", {"CPU": 2.0, "GPU": 2.0}):
        pass


def test_neighbours_of_a_comparison_and_of_the_target_are_those_on_all_cards_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Frame(used_mib=500.0, used_elsewhere_mib=7000.0)]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for cards, mib in ((1, 500.0), (2, 7500.0)):
        config = ExperimentConfig()
        config.services.vllm.tensor_parallel_size = cards
        info, beside = Arena(asdict(config), "cuda").device()
        found = target_device(PromoteSettings(device="cuda"), ProcessSupervisor(tmp_path), most_cards(config))
        assert (beside, found.neighbours_mib) == (mib, mib)
        assert found.name == info["name"], "the gate asks for the same card"
