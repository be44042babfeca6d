"""Which windows count: each verdict, from what a card tells during one (a fake NVML) to what the window says."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_nvml import OTHER, FakeNvml, Frame
from tune_gpu.telemetry import sampler as sampling
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.probe import Reading
from tune_gpu.telemetry.sampler import DeviceSampler, DeviceStats
from tune_gpu.telemetry.verdicts import Limits, SampleSeries, VerdictKind, energy_j, judge

OURS = {"whisper": [21], "vllm": [31, 32]}
GOOD = Frame({21: 1000.0, 32: 6000.0, 7: 512.0})
"""Process 7 was there before; vLLM's API server (31) holds nothing on the card, its engine (32) does."""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "HZ", 500.0)


def sampled(frames: list[Frame], limits: Limits | None = None, reference_mhz: float | None = None) -> DeviceStats:
    """A window in which the card tells these frames, one a reading."""
    seen = threading.Event()
    nvml = FakeNvml([frames[0], frames[0], *frames], on_frame=lambda turn: seen.set() if turn > len(frames) + 1 else None)
    probe = NvmlProbe("0", nvml)
    services = {name: (lambda pids=pids: pids) for name, pids in OURS.items()}
    with DeviceSampler(probe, services, neighbours={7}, limits=limits, reference_mhz=reference_mhz) as sampler:
        assert seen.wait(10)
    probe.close()
    return sampler.window()


def kinds(window: DeviceStats) -> set[VerdictKind]:
    return {verdict.kind for verdict in window.verdicts}


def test_an_undisturbed_window_on_the_right_card_counts() -> None:
    """It has the peaks of its services."""
    window = sampled([GOOD] * 5 + [Frame({21: 1200.0, 32: 6100.0, 7: 512.0})] + [GOOD] * 6)
    assert window.invalid is None
    assert window.peak_service_mib == {"whisper": 1200.0, "vllm": 6100.0}
    assert window.energy_j is not None
    assert window.energy_j == pytest.approx(15.0 * (window.n_readings - 1)), "by the card's own counter"


def test_a_service_on_another_card_is_on_the_wrong_device() -> None:
    window = sampled([Frame({32: 6000.0}, elsewhere={21: 1000.0})] * 12)
    assert kinds(window) == {VerdictKind.WRONG_DEVICE}
    assert window.wrong_device is not None
    assert "whisper" in window.wrong_device
    probe = NvmlProbe("0", FakeNvml([Frame({32: 6000.0}, elsewhere={21: 1000.0})]))
    assert OTHER in probe.other_devices_of([21])
    probe.close()


def test_a_foreign_process_disturbs_only_if_it_appears_meanwhile() -> None:
    window = sampled([GOOD] * 6 + [Frame({**GOOD.processes, 666: 300.0})] * 6)
    assert kinds(window) == {VerdictKind.FOREIGN_PROCESS}
    assert "666" in str(window.invalid)


def test_a_new_process_of_a_service_is_ours() -> None:
    """An engine starts a worker in the middle of a window: its tree is walked before it is called a stranger."""
    pids = [31, 32]
    seen = threading.Event()

    def play(turn: int) -> None:
        if turn == 6:
            pids.append(33)
        if turn > 14:
            seen.set()

    nvml = FakeNvml([GOOD] * 6 + [Frame({**GOOD.processes, 33: 100.0})] * 9, on_frame=play)
    probe = NvmlProbe("0", nvml)
    with DeviceSampler(probe, {"whisper": lambda: [21], "vllm": lambda: pids}, neighbours={7}) as sampler:
        assert seen.wait(10)
    probe.close()
    assert sampler.window().invalid is None


@pytest.mark.parametrize(
    ("bits", "kind"), [(0x40, VerdictKind.THERMAL_THROTTLING), (0x20, VerdictKind.THERMAL_THROTTLING), (0x04, VerdictKind.POWER_THROTTLING)]
)
def test_throttling_disturbs(bits: int, kind: VerdictKind) -> None:
    throttled = Frame(GOOD.processes, reasons=bits, temperature=93)
    window = sampled([GOOD] * 6 + [throttled] * 6)
    assert kinds(window) == {kind}
    assert "93 degrees" in str(window.invalid)


def test_a_card_that_always_runs_at_its_power_cap_may_be_let_pass() -> None:
    capped = Frame(GOOD.processes, reasons=0x04)
    assert sampled([capped] * 12, Limits(power_cap_invalidates=False)).invalid is None


def test_clocks_that_fall_disturb_within_a_window_and_from_one_to_the_next() -> None:
    slow = Frame(GOOD.processes, clock=1200)
    assert kinds(sampled([GOOD] * 8 + [slow] * 8)) == {VerdictKind.CLOCKS_FELL}
    assert kinds(sampled([slow] * 12, reference_mhz=1900.0)) == {VerdictKind.CLOCKS_FELL}


def test_an_idle_card_that_lowers_its_clocks_does_not() -> None:
    idle = Frame(GOOD.processes, clock=300, utilization=0, reasons=0x01)
    assert sampled([GOOD] * 8 + [idle] * 8).invalid is None


def test_a_driver_that_falls_silent_invalidates_and_ends_in_time() -> None:
    nvml = FakeNvml([GOOD])
    nvml._on_frame = lambda turn: nvml.gate.clear() if turn == 6 else None
    probe = NvmlProbe("0", nvml, timeout_s=0.05)
    with DeviceSampler(probe, {"whisper": lambda: [21], "vllm": lambda: [32]}, neighbours={7}) as sampler:
        assert nvml.stuck.wait(10)
    window = sampler.window()
    assert kinds(window) == {VerdictKind.DRIVER_SILENT}
    assert "not answered" in str(window.invalid)
    nvml.gate.set()
    probe.close()


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=0, max_size=30), st.floats(1, 5000))
def test_steady_clocks_and_own_processes_are_never_called_disturbed(busy: list[float], clock: float) -> None:
    readings = [Reading(utilization, 100.0, clock, processes={1: 5.0, 9: 1.0}) for utilization in busy]
    assert judge(SampleSeries(readings, {"vllm": {1}}, {9}, clock), Limits()) == []


def test_on_the_cpu_where_no_process_list_exists_nothing_is_judged_by_it() -> None:
    assert judge(SampleSeries([Reading(50.0, 100.0)] * 5, {"vllm": {1}}), Limits()) == []


def test_energy_is_the_integral_of_power_where_the_card_has_no_counter() -> None:
    readings = [(0.0, Reading(1, 1, power_w=100.0)), (1.0, Reading(1, 1, power_w=200.0)), (3.0, Reading(1, 1, power_w=200.0))]
    assert energy_j(readings) == 150.0 + 400.0
    assert energy_j(readings[:1]) is None
    assert energy_j([(0.0, Reading(1, 1)), (1.0, Reading(1, 1))]) is None
