"""The memory that a start took on a card is kept for services without a model: by NVML, for each process, with the peak of the windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_nvml import OTHER, UUID, FakeNvml, Frame
from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.config.kinds import load_kind
from tune_gpu.config.schema import ExperimentConfig, RunSettings
from tune_gpu.evaluation import device_guard, preflight_check
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.evaluation.memory_check.cards import card_memory
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.evaluation.taken_memory import TakenMemory
from tune_gpu.services.base import Service
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.sampler import DeviceStats

CARD = card_memory("RTX 3090")


@dataclass
class Running:
    """A service with these processes."""

    ids: list[int]
    lost: Failure | None = None

    def pids(self) -> list[int]:
        return self.ids

    def failure(self) -> Failure | None:
        return self.lost


@dataclass
class Set:
    """The services that run, with the settings with which they were started."""

    services: list[Service]
    running: dict[str, Any] = field(default_factory=dict)

    def started(self) -> list[Service]:
        return self.services


def command(name: str, gpus: int = 1) -> Service:
    kind = load_kind("command")
    return Service(name, kind, kind.Settings(command=[name, "{port}"], health="/health", gpus=gpus))


def window(**peaks: float | None) -> DeviceStats:
    return DeviceStats(90.0, 1000.0, peaks, 0, 10)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNvml:
    fake = FakeNvml([Frame({11: 300.0, 12: 50.0, 21: 700.0}, elsewhere={11: 400.0})])
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path))
    monkeypatch.setattr(device_guard, "open_probe", lambda _kind, card: NvmlProbe(card, fake))
    monkeypatch.setattr(preflight_check, "this_card", lambda _card: CARD)
    return fake


def taken(services: list[Service], running: Mapping[str, Running], windows: list[DeviceStats], n_cards: int = 1) -> dict[str, float]:
    """Return what was kept of each service, once these services were warmed and had these windows."""
    guard = DeviceGuard("cuda", RunSettings(), lambda: f"{UUID},{OTHER}")
    guard.use(n_cards)
    held: Any = Set(services, dict(running))
    memory = TakenMemory(PreflightCheck(ExperimentConfig(), "cuda", pytest.fail), held, guard)
    for service in services:
        memory.warmed(service)
    memory.loaded(windows)
    guard.close()
    found = {service.name: EarlierStarts().footprint(service, CARD) for service in services}
    return {name: footprint.mean_mib for name, footprint in found.items() if footprint is not None}


@pytest.mark.usefixtures("nvml")
def test_a_start_took_the_most_that_any_reading_showed() -> None:
    services, running = [command("tts"), command("ocr")], {"tts": Running([11, 12]), "ocr": Running([21])}
    assert taken(services, running, [window(tts=340.0, ocr=900.0), window(tts=None, ocr=800.0)]) == {"tts": 350.0, "ocr": 900.0}


@pytest.mark.usefixtures("nvml")
def test_of_several_cards_the_fullest_counts() -> None:
    assert taken([command("tts", gpus=2)], {"tts": Running([11, 12])}, [window(tts=700.0)], n_cards=2) == {"tts": 400.0}


@pytest.mark.usefixtures("nvml")
def test_a_service_that_has_failed_teaches_nothing() -> None:
    lost = Failure(FailureKind.SERVICE_LOST, "tts", Phase.LOAD, "it has ended")
    assert taken([command("tts")], {"tts": Running([11], lost)}, [window(tts=900.0)]) == {}


def test_a_card_that_does_not_list_its_processes_teaches_nothing(nvml: FakeNvml) -> None:
    nvml.silent_on = {UUID: nvml.NVMLError_NoPermission}
    assert taken([command("tts")], {"tts": Running([11])}, [window(tts=None)]) == {}


@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize("model", ["base", "no-such-size"])
def test_a_service_whose_kind_has_a_model_is_not_measured(model: str) -> None:
    service = Service("stt", load_kind("faster-whisper"), WhisperSettings(model=model))
    assert taken([service], {"stt": Running([11])}, [window(stt=900.0)]) == {}
