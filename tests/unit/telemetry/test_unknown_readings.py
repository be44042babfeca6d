"""What is made of readings that are null: never a 0, and never a disturbed window."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_nvml import ERRORS, FakeNvml, Frame
from tune_gpu.telemetry import sampler as sampling
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.probe import DeviceInfo, Reading, total
from tune_gpu.telemetry.sampler import DeviceSampler, DeviceStats, wait_until_returned, wait_until_stable
from tune_gpu.telemetry.several import SeveralCards
from tune_gpu.telemetry.verdicts import Limits, SampleSeries, VerdictKind, energy_j, judge, unchecked

FULL = Reading(90.0, 8000.0, 1900.0, 150.0, 1000.0, 65.0, frozenset(), {7: 512.0, 21: 1000.0})
OPTIONAL = [field.name for field in dataclasses.fields(Reading)]


class Tape:
    """A card that gives these readings, the last one for ever."""

    def __init__(self, readings: list[Reading], kind: str = "cuda") -> None:
        self.info = DeviceInfo(kind, "made up", None, 12288.0)
        self._readings = readings
        self.n_read = 0
        self.ended = threading.Event()

    def read(self) -> Reading:
        self.n_read += 1
        if self.n_read > len(self._readings):
            self.ended.set()
        return self._readings[min(self.n_read, len(self._readings)) - 1]

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        listed = self._readings[min(self.n_read, len(self._readings)) - 1].processes
        return None if listed is None else {pid: mib for pid, mib in listed.items() if pid in pids}

    def other_devices_of(self, pids: list[int]) -> str:
        return ""

    def oom_events(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing was opened."""


def sampled(readings: list[Reading], monkeypatch: pytest.MonkeyPatch) -> DeviceStats:
    monkeypatch.setattr(sampling, "HZ", 500.0)
    card = Tape(readings)
    with DeviceSampler(card, {"whisper": lambda: [21]}, neighbours={7}) as sampler:
        assert card.ended.wait(10)
    return sampler.window()


@given(st.lists(st.sets(st.sampled_from(OPTIONAL)), min_size=1, max_size=20), st.booleans())
def test_no_null_in_any_reading_makes_a_window_invalid(missing: list[set[str]], known_before: bool) -> None:
    readings = [dataclasses.replace(FULL, **dict.fromkeys(nulls)) for nulls in missing]
    trace = SampleSeries(readings, {"whisper": {21}}, {7} if known_before else None, 1900.0)
    assert judge(trace, Limits()) == []
    unchecked(trace, Limits())
    energy_j([(float(at), reading) for at, reading in enumerate(readings)])


def test_what_is_seen_beside_nulls_still_disturbs() -> None:
    blind = dataclasses.replace(FULL, throttled=None, processes=None)
    hot = dataclasses.replace(FULL, throttled=frozenset({"thermal"}), processes={7: 512.0, 21: 1000.0, 666: None})
    found = judge(SampleSeries([blind] * 20 + [hot] * 2, {"whisper": {21}}, {7}), Limits())
    assert {verdict.kind for verdict in found} == {VerdictKind.THERMAL_THROTTLING, VerdictKind.FOREIGN_PROCESS}
    assert "process 666 of somebody else appeared on the card (its memory is not reported)" in {verdict.message for verdict in found}


def test_a_window_says_what_its_card_did_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sampled([FULL] * 5, monkeypatch).unchecked == ()
    blind = sampled([Reading(None, None, throttled=None)] * 15, monkeypatch)
    assert [warning.partition(":")[0] for warning in blind.unchecked] == [
        "the card does not report its processes",
        "the card does not report why its clocks are low",
        "the card does not report its clock and utilisation",
    ]
    assert (blind.invalid, blind.utilization_pct, blind.peak_used_mib, blind.energy_j) == (None, None, None, None)
    assert blind.peak_service_mib == {"whisper": None}, "not 0: not known"
    assert {moment.used_mib for moment in blind.moments} == {None}


def test_a_services_peak_is_of_the_readings_that_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = dataclasses.replace(FULL, processes={7: 512.0, 21: None})
    assert sampled([nothing] * 3 + [FULL] + [nothing] * 3, monkeypatch).peak_service_mib == {"whisper": 1000.0}
    assert sampled([nothing] * 5, monkeypatch).peak_service_mib == {"whisper": None}


def test_a_utilisation_of_0_under_load_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Jetson Thor answers 0 whatever it does."""
    window = sampled([dataclasses.replace(FULL, utilization_pct=0.0)] * 10, monkeypatch)
    assert window.utilization_pct is None
    assert "reports a utilisation of 0 under load" in " ".join(window.unchecked)
    assert sampled([dataclasses.replace(FULL, utilization_pct=0.0)] * 5 + [FULL], monkeypatch).utilization_pct is not None


def test_energy_is_not_of_a_part_of_the_window_only() -> None:
    readings = [(float(at), Reading(90.0, 1.0, power_w=100.0, energy_j=100.0 * at)) for at in range(20)]
    assert energy_j(readings) == 1900.0
    late = [(at, dataclasses.replace(reading, energy_j=None) if at < 10 else reading) for at, reading in readings]
    assert energy_j(late) == 1900.0, "by its power"
    blind = [(at, Reading(90.0, 1.0) if at < 10 else reading) for at, reading in readings]
    assert energy_j(blind) is None


def test_memory_that_is_not_reported_is_not_waited_for() -> None:
    silent, reported = Reading(0.0, None), Reading(0.0, 700.0)
    card = Tape([silent])
    assert wait_until_stable(card, samples=3, tolerance_mib=1.0, timeout_s=600.0, interval_s=0.0) is None
    assert card.n_read == 3
    assert wait_until_stable(Tape([silent, reported]), samples=3, tolerance_mib=1.0, timeout_s=600.0, interval_s=0.0) is True
    assert wait_until_returned(Tape([silent]), 700.0, tolerance_mib=1.0, timeout_s=600.0, interval_s=0.0) is None
    assert wait_until_returned(Tape([reported]), None, tolerance_mib=1.0, timeout_s=600.0, interval_s=0.0) is None
    assert wait_until_returned(Tape([silent, silent, reported]), 700.0, tolerance_mib=1.0, timeout_s=600.0, interval_s=0.0) == 0.0


def test_neighbours_whose_memory_is_not_known_do_not_hold_nothing() -> None:
    cards = {
        "used": Tape([dataclasses.replace(FULL, used_mib=None)]),
        "ours": Tape([dataclasses.replace(FULL, processes={7: 512.0, 21: None})]),
        "list": Tape([dataclasses.replace(FULL, processes=None)]),
    }
    found = {name: neighbours_on(card, [21]) for name, card in cards.items()}
    assert {name: beside.mib for name, beside in found.items()} == {"used": None, "ours": None, "list": None}
    assert found["list"].as_dict() == {"memory_mib": None, "utilization_pct": 90.0, "processes": None}
    assert neighbours_on(cards["list"]).mib == 8000.0, "with nothing of ours there, all of it is theirs"
    theirs = neighbours_on(Tape([dataclasses.replace(FULL, processes={7: None})]))
    assert (theirs.mib, theirs.as_dict()["processes"][0]["memory_mib"]) == (8000.0, None)


@pytest.mark.parametrize("function", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetCurrentClocksThrottleReasons"])
def test_what_one_of_several_cards_does_not_report_is_null_of_all(function: str) -> None:
    fakes = [FakeNvml([Frame({21: 1000.0})]) for _ in range(2)]
    fakes[1].raises[function] = ERRORS["Unknown"]
    cards = SeveralCards([NvmlProbe("0", fake) for fake in fakes])
    reading = cards.read()
    null = {"MemoryInfo": reading.used_mib, "RunningProcesses": reading.processes, "ThrottleReasons": reading.throttled}
    assert [name for name, value in null.items() if value is None] == [name for name in null if function.endswith(name)]
    assert (cards.info.total_mib is None) == function.endswith("MemoryInfo")
    assert (cards.memory_by_pid_mib([21]) is None) == function.endswith("RunningProcesses")
    cards.close()


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert (total([1.0, 2.0]), total([]), total([1.0, None])) == (3.0, 0.0, None)
