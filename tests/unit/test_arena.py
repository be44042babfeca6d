"""Where comparisons and soaks are measured: whether there is such a place."""

from __future__ import annotations

import pytest

from trainables import arena as module
from trainables.arena import ArenaLost, arena
from tune_gpu.config import ExperimentConfig


def test_where_no_node_has_what_a_comparison_takes_it_ends_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A winner on two cards, compared or promoted on a machine with one: Ray keeps an actor that fits nowhere pending for ever."""
    one, gone = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    monkeypatch.setattr(module.ray, "nodes", lambda: [one, gone])
    monkeypatch.setattr(module.ray, "remote", lambda _actor: pytest.fail("an actor was asked for"))
    with pytest.raises(ArenaLost, match=r"no node has all that it takes \(CPU 2, GPU 2\)"), arena(ExperimentConfig(), "cuda", {"CPU": 2.0, "GPU": 2.0}):
        pass
