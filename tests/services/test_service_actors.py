"""Real services as processes of Ray actors, with made-up GPUs: fractions of one card, and what the engine's own workers see of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from tests.conftest import our_processes
from tests.services.conftest import toy
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.config.kinds import load_kind
from tune_gpu.config.loader import load_config
from tune_gpu.ray_tune.placement import trial_resources
from tune_gpu.ray_tune.service_actors import PlacementGroupDeployer, RemoteService
from tune_gpu.services.base import Service
from tune_gpu.services.deployment import resolve
from tune_gpu.services.faster_whisper.settings import WhisperSettings

CARDS = ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-3f8fe1a0-1f7c-5c7b-9f0e-2b7d4d2c9a11"]
ENGINE = {
    "vllm": Service("vllm", load_kind("vllm"), toy(env={"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"})),
    "whisper": Service("whisper", load_kind("faster-whisper"), WhisperSettings(model="tiny.en", compute_type="int8")),
}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(CARDS)
    variables = {"TUNE_GPU_TOLD": "by runtime_env"}
    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()
    os.environ.pop("CUDA_VISIBLE_DEVICES")
    if before is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


class Trial:
    """A trial's actor: it holds no card itself and makes its services in the second bundle."""

    def __init__(self, name: str, share: float) -> None:
        config = load_config("spica_gpu_allocation", [], "cuda")
        resources = trial_resources(config, resolve(config, {"vllm_memory_util": share}, "cuda"), "cuda")
        self._bundle = PlacementGroupDeployer(config, "cuda", resources, lambda: name)
        self._made: dict[str, RemoteService] = {}

    def start(self, name: str) -> tuple[str, list[tuple[str, dict[str, str]]]]:
        """Start a service; the card, and the command and variables of each of its processes."""
        # Whisper has no CPU mode that calls itself cuda; its environment is made the same way for both.
        self._bundle._device = "cpu" if name == "whisper" else "cuda"
        service = self._made[name] = self._bundle.make(ENGINE[name])
        service.start()
        processes = [psutil.Process(pid) for pid in service.pids()]
        return self._bundle.visible_devices(), [(" ".join(process.cmdline()), process.environ()) for process in processes]

    def start_in_vain(self) -> str:
        """Start an engine that does not get ready in time; the failure kind that the trial then sees."""
        self._bundle._device = "cuda"
        engine = ENGINE["vllm"]
        try:
            self._bundle.make(replace(engine, settings=replace(engine.settings, start_timeout_s=0.01))).start()
        except ServiceError as error:
            return str(error.failure.kind)
        return ""

    def card(self) -> str:
        return self._bundle.visible_devices()

    def pids(self) -> list[int]:
        return [pid for service in self._made.values() for pid in service.pids()]

    def kill_service(self, name: str) -> str:
        """Kill its processes; the failure kind that the trial then sees."""
        service = self._made[name]
        for pid in service.pids():
            psutil.Process(pid).kill()
        while (failure := service.failure()) is None:
            time.sleep(0.02)
        return str(failure.kind)

    def close(self) -> None:
        self._bundle.close()


def trial(name: str, share: float) -> tuple[Any, PlacementGroup]:
    config = load_config("spica_gpu_allocation", [], "cuda")
    group = placement_group(trial_resources(config, resolve(config, {"vllm_memory_util": share}, "cuda"), "cuda").bundles, strategy="STRICT_PACK")
    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    actor: Any = ray.remote(Trial)
    return actor.options(num_cpus=1, scheduling_strategy=strategy).remote(name, share), group


def test_two_services_share_their_trials_card_with_their_grandchildren(tmp_path: Path) -> None:
    """Another trial has the other card."""
    before = _ours()
    first, group = trial("g0-c0", 0.6)
    second, other_group = trial("g0-c1", 0.4)
    card, whisper = ray.get(first.start.remote("whisper"))
    same, engine = ray.get(first.start.remote("vllm"))
    assert card == same
    assert card in CARDS, "UUID and MIG strings are kept as they are"
    assert ray.get(second.card.remote()) == next(other for other in CARDS if other != card)
    assert any("VLLM::" in command or "multiprocessing" in command or "EngineCore" in command for command, _ in engine), "the engine's own workers are among them"
    for _, variables in (*whisper, *engine):
        assert variables["CUDA_VISIBLE_DEVICES"] == card
        assert variables["TUNE_GPU_TOLD"] == "by runtime_env"
    assert all(variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID" for _, variables in engine)
    assert {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)} >= {"vllm-g0-c0", "whisper-g0-c0"}

    assert ray.get(first.kill_service.remote("whisper")) == FailureKind.SERVICE_LOST
    pids = ray.get(first.pids.remote())
    assert pids
    ray.kill(first)  # as a trial ends that is killed: its actors have lost their owner
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in _ours() - before if start_ticks(pid) is not None], timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    ray.kill(second)
    for held in (group, other_group):
        remove_placement_group(held)


def test_a_failed_engine_returns_its_share_of_the_card() -> None:
    mine, group = trial("g0-c2", 0.6)
    assert [ray.get(mine.start_in_vain.remote()) for _ in range(2)] == [FailureKind.STARTUP_TIMEOUT] * 2
    ray.kill(mine)
    remove_placement_group(group)


def _ours() -> set[int]:
    """Ids of the processes that these tests have started, guards and all."""
    return {int(line.split()[0]) for line in our_processes()}
