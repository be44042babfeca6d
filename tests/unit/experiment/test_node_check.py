"""Packages and models that a node lacks are reported before the first trial: one line with the node, the service and what to install."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment import node_check
from tune_gpu.ray_tune import nodes
from tune_gpu.ray_tune.nodes import NoAnswerOfNode, Node
from tune_gpu.services.command.kind import Command

A, B = Node("aaaaaaaabbbb", "10.0.0.1"), Node("ccccccccdddd", "10.0.0.2")
SERVER = {"kind": "command", "command": [sys.executable, "{port}"], "health": "/health"}


def config(services: Mapping[str, Any] | None = None, address: str | None = "10.0.0.1:6379") -> ExperimentConfig:
    knobs = {"patience": {"target": f"{next(iter(services or {}), 'vllm')}.start_timeout_s", "values": [60.0]}}
    found = config_of({"services": services, "parameters": knobs} if services else {"parameters": knobs})
    return replace(found, ray=replace(found.ray, address=address))


def refusal(monkeypatch: pytest.MonkeyPatch, answers: dict[Node, Any]) -> str:
    """Return what the check of a cluster with these answers prints; empty if it refuses nothing."""
    monkeypatch.setattr(nodes, "nodes_of_trials", lambda *_given: list(answers))
    monkeypatch.setattr(nodes, "on_each_node", lambda *_given: answers)
    try:
        node_check.check_nodes(config(), "cuda")
    except UserError as error:
        return str(error)
    return ""


def test_nodes_that_lack_the_same_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "stt: faster-whisper is not installed. Run pip install 'tune-gpu[whisper]'."
    assert refusal(monkeypatch, {A: [], B: []}) == ""
    assert refusal(monkeypatch, {A: [], B: [missing]}) == f"node 10.0.0.2 (cccccccc): {missing}"
    both = refusal(monkeypatch, {A: [missing], B: [missing, "tts: another"]})
    assert both == f"nodes 10.0.0.1 (aaaaaaaa), 10.0.0.2 (cccccccc): {missing} (1 further problem: tune-gpu doctor prints them there)"


def test_a_node_without_this_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(monkeypatch, {A: NoAnswerOfNode("ModuleNotFoundError: No module named 'tune_gpu'"), B: []})
    assert found.startswith("node 10.0.0.1 (aaaaaaaa): it cannot check its services. Install this program there.")
    assert "No module named 'tune_gpu'" in found


def test_without_a_cluster_no_node_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "nodes_of_trials", lambda *_given: pytest.fail("Ray need not be up"))
    node_check.check_nodes(config(address=None), "cuda")


def test_what_is_lacking_begins_with_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_gpu.services.faster_whisper.kind.is_installed", lambda _name: False)
    services = {"ear": {"kind": "faster-whisper"}, "good": SERVER, "bad": SERVER | {"command": ["no-such-server", "{port}"]}, "llm": {"kind": "vllm", "model": "./nowhere"}}
    found = node_check.lacking(asdict(config(services)), "cpu")
    assert found[0] == "ear: faster-whisper is not installed. Run pip install 'tune-gpu[whisper]'."
    assert found[1].startswith("services.bad.command: the program no-such-server is not in PATH. Install it")
    assert found[2].startswith("llm: ")
    assert "./nowhere" in found[2]
    assert not any("good" in line for line in found)


def test_a_kind_that_a_node_does_not_have_is_named() -> None:
    experiment = asdict(config({"tts": SERVER}))
    experiment["services"]["tts"]["kind"] = "my-kind"
    (found,) = node_check.lacking(experiment, "cuda")
    assert "services.tts.kind=my-kind: no such kind of service" in found
    assert "install the package that has it" in found


def test_a_kind_that_raises_anything_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_given: Any, **_named: Any) -> None:
        raise KeyError("a fault of its own")

    monkeypatch.setattr(Command, "check", broken)
    assert node_check.lacking(asdict(config({"tts": SERVER})), "cpu")[0].startswith("tts: a service of kind command cannot be checked (KeyError: ")
