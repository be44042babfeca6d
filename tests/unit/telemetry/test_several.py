"""Several cards as one device."""

from __future__ import annotations

from tests.support.fake_nvml import OTHER, UUID, FakeNvml, Frame
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.several import SeveralCards


def both(frame: Frame, unsupported: set[str] = frozenset()) -> SeveralCards:  # type: ignore[assignment]
    nvml = FakeNvml([frame], unsupported=unsupported)
    return SeveralCards([NvmlProbe(UUID, nvml), NvmlProbe(OTHER, nvml)])


def test_what_adds_up_is_added_up_and_of_the_rest_the_worst_card_speaks() -> None:
    found = both(Frame({1: 100.0, 2: None}, 90, 8000.0, used_elsewhere_mib=1000.0, utilization_elsewhere=50, clock_elsewhere=1500, elsewhere={1: 50.0},
                       reasons_elsewhere=0x04))
    assert (found.info.name, found.info.uuid) == ("NVIDIA GeForce RTX 3060", f"{UUID},{OTHER}")
    reading = found.read()
    assert (reading.used_mib, reading.utilization_pct, reading.clock_mhz, reading.power_w, reading.temperature_c) == (9000.0, 70.0, 1500.0, 300.0, 65.0)
    assert (reading.throttled, reading.processes) == ({"power"}, {1: 150.0, 2: None})
    assert found.memory_by_pid_mib([1, 3]) == {1: 150.0}


def test_a_card_that_waits_for_the_others_has_not_lost_its_clock() -> None:
    assert both(Frame(utilization=90, clock=1900, utilization_elsewhere=5, clock_elsewhere=300)).read().clock_mhz == 1900.0


def test_what_a_card_does_not_tell_is_not_told_of_all() -> None:
    reading = both(Frame(), {"power", "energy"}).read()
    assert (reading.power_w, reading.energy_j) == (None, None)
    assert reading.clock_mhz is not None
