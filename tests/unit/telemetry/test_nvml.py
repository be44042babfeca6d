"""A card through NVML, played by a fake at the library's seam."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fake_nvml import MIB, MIG, OTHER, UUID, FakeNvml, Frame
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.evaluation.memory_check.cards import this_card
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.nvml import NvmlProbe, throttling
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.verdicts import Limits, SampleSeries, judge


def test_everything_that_a_card_tells_is_read_in_its_units() -> None:
    probe = NvmlProbe("0", FakeNvml([Frame({11: 5000.0, 12: None}, temperature=71, reasons=0x01)]))
    info, reading = probe.info, probe.read()
    assert (info.kind, info.name, info.uuid, info.total_mib, info.driver) == ("cuda", "NVIDIA GeForce RTX 3060", UUID, 12288.0, "550.54.14")
    assert (reading.utilization_pct, reading.used_mib, reading.clock_mhz, reading.power_w, reading.temperature_c) == (90, 8000, 1900, 150, 71)
    assert reading.processes == {11: 5000.0, 12: None}, "one whose memory the driver does not report is there all the same"
    assert reading.throttled == frozenset(), "idle clocks are no throttling"
    assert probe.memory_by_pid_mib([12, 13]) == {12: None}
    probe.close()


@pytest.mark.parametrize("device", ["1", OTHER, "GPU-1a2b", " 1"])
def test_a_card_is_found_by_its_index_its_uuid_or_the_beginning_of_it(device: str) -> None:
    probe = NvmlProbe(device, FakeNvml([Frame()]))
    assert probe.info.uuid == OTHER
    probe.close()


@pytest.mark.parametrize("device", ["7", "GPU-ffff", "GPU-"])
def test_a_card_that_is_not_there_or_not_one_is_the_wrong_device(device: str) -> None:
    with pytest.raises(ServiceError, match=device) as caught:
        NvmlProbe(device, FakeNvml([Frame()]))
    assert caught.value.failure.kind is FailureKind.WRONG_DEVICE


def test_a_mig_instance_keeps_its_name_and_counts_no_others_energy() -> None:
    probe = NvmlProbe(MIG, FakeNvml([Frame({11: 900.0})]))
    reading = probe.read()
    assert probe.info.uuid == MIG
    assert (reading.utilization_pct, reading.energy_j, reading.power_w) == (None, None, None)
    assert reading.clock_mhz == 1900
    assert reading.processes == {11: 900.0}
    probe.close()


@pytest.mark.parametrize("device", ["0", UUID])
def test_a_mig_card_is_not_mistaken_for_its_instance(device: str) -> None:
    nvml = FakeNvml([Frame()])
    nvml.divided.add(UUID)
    with pytest.raises(ServiceError, match="divided by MIG: name an instance") as caught:
        NvmlProbe(device, nvml)
    assert caught.value.failure.kind is FailureKind.WRONG_DEVICE
    for other in (MIG, OTHER):
        NvmlProbe(other, nvml).close()


def test_what_a_card_does_not_offer_is_null_and_asked_for_once() -> None:
    nvml = FakeNvml([Frame()], unsupported={"power", "energy"})
    probe = NvmlProbe("0", nvml)
    assert probe.read().power_w is None
    nvml._unsupported = set()
    assert probe.read().power_w is None
    probe.close()


def test_a_card_that_shares_the_hosts_memory_has_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML 580 on a DGX Spark answers Not Supported where it is asked for the memory (nvidia-smi: N/A), and the rest it tells."""
    host = SimpleNamespace(total=124610 * MIB, available=115000 * MIB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: host)
    nvml = FakeNvml([Frame({11: 900.0})], unsupported={"memory"})
    nvml.name = b"NVIDIA GB10"
    probe = NvmlProbe("0", nvml)
    assert probe.info.total_mib == 124610
    assert (probe.read().used_mib, probe.read().processes) == (9610, {11: 900.0})
    probe.close()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert this_card().total_mib == 122573


def test_unreported_processes_prove_no_wrong_card() -> None:
    nvml = FakeNvml([Frame({11: 900.0})])
    nvml.silent_on[UUID] = FakeNvml.NVMLError_NotSupported
    probe = NvmlProbe("0", nvml)
    reading = probe.read()
    assert reading.processes is None, "not none: not known"
    assert judge(SampleSeries([reading], own={"vllm": {11}}), Limits()) == []
    assert "NVML does not report which processes" in probe.other_devices_of([11])
    probe.close()


@pytest.mark.parametrize("why", [FakeNvml.NVMLError_NoPermission, FakeNvml.NVMLError_NotSupported])
def test_another_card_without_a_process_list_changes_nothing_here(why: type[Exception]) -> None:
    """The whole card beside a MIG instance lists its processes to the privileged only (NVML's documentation)."""
    nvml = FakeNvml([Frame({11: 900.0})])
    nvml.silent_on[OTHER] = why
    probe = NvmlProbe("0", nvml)
    assert "none of this machine's other cards has those of the service" in probe.other_devices_of([12])
    assert probe.read().processes == {11: 900.0}
    probe.close()


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        (0x01, set()),  # idle
        (0x02 | 0x10, set()),  # clocks set by a user, sync boost
        (0x04, {"power"}),
        (0x80, {"power"}),
        (0x20, {"thermal"}),
        (0x08 | 0x40, {"thermal"}),
        (0x08, {"thermal or power"}),
    ],
)
def test_reasons_for_low_clocks_are_heat_power_or_nothing_that_disturbs(bits: int, why: set[str]) -> None:
    assert throttling(bits) == why


def test_a_silent_driver_fails_every_query_at_once_until_it_answers() -> None:
    nvml = FakeNvml([Frame()])
    probe = NvmlProbe("0", nvml, timeout_s=0.05)
    nvml.gate.clear()
    for _ in range(2):
        with pytest.raises(ServiceError, match="has not answered for") as caught:
            probe.read()
        assert caught.value.failure.kind is FailureKind.MEASUREMENT_INVALID
    overdue = probe._answering._overdue
    assert overdue is not None
    nvml.gate.set()
    overdue.done.wait()
    assert probe.read().used_mib == 8000
    probe.close()


def test_a_card_that_falls_off_the_bus_is_said_in_the_drivers_words() -> None:
    nvml = FakeNvml([Frame()])
    probe = NvmlProbe("0", nvml)
    nvml.lost = True
    with pytest.raises(ServiceError, match="GPU is lost"):
        probe.read()
    probe.close()


def test_neighbours_are_all_but_ours() -> None:
    probe = NvmlProbe("0", FakeNvml([Frame({11: 2048.0, 12: 5000.0}, used_mib=7500.0)]))
    found = neighbours_on(probe, [12])
    assert found.pids == {11}
    assert found.as_dict()["memory_mib"] == 2500.0, "memory that no process owns (the driver's own) is a neighbour's"
    assert found.as_dict()["processes"][0]["memory_mib"] == 2048.0
    probe.close()


class TwoSizes(FakeNvml):
    """Its second card is a larger one; the MIG instance is small."""

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total={UUID: 12, OTHER: 80, MIG: 10}[handle] * 1024 * MIB, used=0)


@pytest.mark.parametrize(("visible", "gib"), [(None, 12), ("", 12), ("1", 80), (" 1,0", 80), (OTHER, 80), ("GPU-1a2b,0", 80), (MIG, 10)])
def test_the_card_that_is_planned_for_is_the_first_that_cuda_sees(monkeypatch: pytest.MonkeyPatch, visible: str | None, gib: int) -> None:
    """By it the preflight refuses, and the manifest and `promote` name it; Ray hands out what CUDA_VISIBLE_DEVICES leaves."""
    monkeypatch.setitem(sys.modules, "pynvml", TwoSizes([Frame()]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    probe = open_probe("cuda")
    assert probe.info.total_mib == gib * 1024
    probe.close()
    assert this_card().total_mib == pytest.approx(gib * 1024, rel=0.05)  # less by what the driver keeps
