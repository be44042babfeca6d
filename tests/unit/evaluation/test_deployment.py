"""A candidate is resolved once an evaluation, and nothing that was resolved is changed afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest

from tests.faults.tiny import PARAMS, SETTINGS, TinyEvaluator
from tests.support.fake_nvml import UUID, FakeNvml
from tests.support.servers import Behaviour, servers
from tests.unit.evaluation.test_card_evaluation import BEFORE, QUICK, RUNNING, Answering, MadeUpCard
from tests.unit.evaluation.test_card_evaluation import PARAMS as ON_CARD
from trainables.spica import SpicaTrainable
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.config.targets import settings_with
from tune_gpu.evaluation import device_guard, service_set
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Status
from tune_gpu.services.base import Service
from tune_gpu.services.deployment import resolve
from tune_gpu.telemetry import sampler
from tune_gpu.telemetry.nvml import NvmlProbe

CANDIDATE = {"candidate_id": "g0-c0", "generation": 0, "origin": "fresh", "params": PARAMS}


def test_one_evaluation_resolves_its_candidate_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted wherever the function that reads parameters is known, over a whole trial: its deployment, its windows, its end."""
    experiment = load_config("spica_gpu_allocation", [*SETTINGS, "workload.windows=2"], "cpu")
    resolved: list[Mapping[str, Any]] = []

    def counted(given: ExperimentConfig, params: Mapping[str, Any]) -> Services:
        resolved.append(params)
        return settings_with(given, params)

    class Tiny(SpicaTrainable):
        def setup(self, config: dict[str, Any], *_given: Any) -> None:
            super().setup(config, asdict(experiment), "cpu")

        def new_evaluator(self, observe: Callable[..., None]) -> TinyEvaluator:
            return TinyEvaluator(monkeypatch, "workload.windows=2")

    ours = [module for name, module in list(sys.modules.items()) if name.startswith(("tune_gpu.", "trainables."))]  # to ask others may import more
    knowing = [module for module in ours if getattr(module, "settings_with", None) is settings_with]
    for module in knowing:
        monkeypatch.setattr(module, "settings_with", counted)
    assert {module.__name__ for module in knowing} >= {"tune_gpu.services.deployment", "tune_gpu.services.cards", "tune_gpu.ray_tune.placement"}
    trial = Tiny({"candidate": CANDIDATE})
    try:
        assert [trial.step()["status"] for _ in range(2)] == ["ok", "ok"]
    finally:
        trial.cleanup()
    assert resolved == [PARAMS]


class Daemon:
    """An MPS daemon that needs no card."""

    def __init__(self, card: str) -> None:
        self._card = card

    def start(self) -> None:
        """Nothing is started."""

    def environment(self, active_thread_pct: float | None) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self._card, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{active_thread_pct:g}"}

    def pids(self) -> list[int]:
        return []

    def stop(self) -> None:
        """Nothing is stopped."""


class Noting(MadeUpCard):
    """Keeps the settings that the services are made with."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.made: dict[str, Service] = {}

    def make(self, service: Service) -> Answering:
        self.made[service.name] = service
        return super().make(service)


def test_a_measured_deployment_and_its_configuration_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card shared by MPS, where the services get variables that the deployment has not."""
    monkeypatch.setattr(sampler, "HZ", 100.0)
    monkeypatch.setattr(service_set, "MpsDaemon", Daemon)
    overrides = ["run.mps=true", "services.vllm.mps_active_thread_pct=60", "services.whisper.mps_active_thread_pct=40", "services.vllm.env={CUDA_VISIBLE_DEVICES: 7, OWN: 1}"]
    config = load_config("spica_gpu_allocation", [*QUICK, *overrides], "cuda")
    with servers(Behaviour(stt_s=0.001, first_token_s=0.001)) as traffic:
        nvml = FakeNvml([BEFORE])
        monkeypatch.setattr(device_guard, "open_probe", lambda kind, card: NvmlProbe(card, nvml))
        card = Noting(traffic, nvml, RUNNING)
        evaluator = Evaluator(config, "cuda", deploy=card)
        deployment = resolve(config, ON_CARD, "cuda")
        before = deepcopy((config, deployment))
        evaluator.begin(deployment)
        evaluator.window()
        assert evaluator.finish().status is Status.OK
        nvml._frames = [BEFORE]
        evaluator.close()
    measured = card.made["vllm"].settings.env
    assert (measured["CUDA_VISIBLE_DEVICES"], measured["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"], measured["OWN"]) == (UUID, "60", "1")
    assert (config, deployment) == before
    assert deployment["vllm"].settings.env["CUDA_VISIBLE_DEVICES"] == "7", "the user's value is for the deployment"


def test_a_deployment_is_frozen_and_apart_from_its_parameters() -> None:
    config, params = load_config("spica_gpu_allocation", [], "cpu"), dict(PARAMS)
    deployment = resolve(config, params, "cpu")
    params["vllm_memory_util"] = 0.9
    assert (deployment.params, deployment["vllm"].settings.gpu_memory_utilization) == (PARAMS, 0.1)
    with pytest.raises(FrozenInstanceError):
        deployment.n_cards = 2  # type: ignore[misc]
