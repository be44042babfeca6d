"""What is said where the process that measures a comparison fails, or has no place, with Ray played at its seam."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from tests.support.fake_nvml import UUID, FakeNvml, Frame
from tests.support.made_run import EXPERIMENT
from tune_gpu.common.errors import UserError
from tune_gpu.compare import measuring_actor
from tune_gpu.compare.measuring_actor import MeasurementActor, MeasurementLost, measurement_client
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig, PromoteSettings
from tune_gpu.promote.evidence import target_device
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.services.cards import most_cards


class FakeRay:
    """A Ray of one node with one card, whose one actor gets its place at the third look, and answers as it is told (what is an exception is raised)."""

    def __init__(self, **answers: Any) -> None:
        self.looks = 0
        self.answers = {"where": ("elsewhere", 1), "device": ({"kind": "cuda"}, 0.0), "close": None} | answers
        self.killed = 0

    def remote(self, _class: type) -> FakeRay:
        return self

    def options(self, **_options: Any) -> Any:
        return SimpleNamespace(remote=lambda *_given: self._actor())

    def _actor(self) -> Any:
        return SimpleNamespace(**{name: SimpleNamespace(remote=lambda *_given, name=name: name) for name in (*self.answers, "hold")})

    def get(self, name: str) -> Any:
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 4.0, "GPU": 8.0}}]

    def wait(self, asked: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout > 0
        self.looks += 1
        return (asked, []) if self.looks > 2 else ([], asked)

    def kill(self, _actor: Any) -> None:
        self.killed += 1


def measure(monkeypatch: pytest.MonkeyPatch, fake: FakeRay, gpus: float = 1.0) -> list[str]:
    """What was said meanwhile."""
    messages: list[str] = []
    monkeypatch.setattr(measuring_actor, "ray", fake)
    monkeypatch.setattr(measuring_actor, "waiting_notice", lambda: "all is taken")
    with measurement_client(load_config(EXPERIMENT, [], "cuda"), "cuda", {"CPU": 2.0, "GPU": gpus}, messages.append) as client:
        client.hold({})
    return messages


@pytest.mark.parametrize("where", ["where", "device", "hold"])
def test_a_remote_error_is_reported_without_its_place_in_the_code(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    traced = 'ray::MeasurementActor.device() (pid=7)\n  File "measuring_actor.py", line 45, in device\ntune_gpu.measurement.ServiceError: the driver does not answer\n'
    fake = FakeRay(**{where: RayTaskError("device", traced, RuntimeError())})
    with pytest.raises(MeasurementLost, match=r"^the process that measures failed: tune_gpu\.measurement\.ServiceError: the driver does not answer$"):
        measure(monkeypatch, fake)
    assert fake.killed == 1


def test_a_process_that_has_gone_is_said_to_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeasurementLost, match=r"^the process that measures has gone: The actor died"):
        measure(monkeypatch, FakeRay(hold=ActorDiedError()))


def test_neighbours_are_those_on_all_cards_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a comparison and for a promotion's target."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Frame(used_mib=500.0, used_elsewhere_mib=7000.0)]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for cards, mib in ((1, 500.0), (2, 7500.0)):
        config = ExperimentConfig()
        config.services.vllm.tensor_parallel_size = cards
        info, beside = MeasurementActor(asdict(config), "cuda").device()
        found = target_device(PromoteSettings(device="cuda"), ProcessSupervisor(tmp_path), [], most_cards(config))
        assert (beside, found.neighbours_mib) == (mib, mib)
        assert found.name == info["name"], "the gate asks for the same card"


def test_who_waits_for_a_place_is_told_once_and_then_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(hold={})
    assert measure(monkeypatch, fake) == ["all is taken"]
    assert (fake.looks, fake.killed) == (3, 1)


def test_a_place_that_no_node_can_give_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    with pytest.raises(MeasurementLost, match=r"^no place to measure in: no node of Ray has 2 CPU, 2 GPU$"):
        measure(monkeypatch, fake, gpus=2.0)
    assert (fake.looks, fake.killed) == (0, 1)


def test_a_target_whose_card_mig_divides_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run on an instance, promoted in a shell that names none."""
    nvml = FakeNvml([Frame()])
    nvml.divided.add(UUID)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UserError, match=r"promote\.device=cuda: card 0 is divided by MIG: name an instance"):
        target_device(PromoteSettings(device="cuda"), ProcessSupervisor(tmp_path), [])
