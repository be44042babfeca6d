"""Every function of NVML that the program calls, times every error of NVML: what the reading becomes, and what the judge says of it."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from tests.support.fake_nvml import ERRORS, MIB, MIG, OTHER, UUID, FakeNvml, Frame
from tune_gpu.cli.doctor import cards as doctor
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.services.findings import Machine
from tune_gpu.services.vllm.examine import check_cuda
from tune_gpu.telemetry import nvml, nvml_answers
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.telemetry.nvml_answers import CARD_LOST, REQUIRED, number
from tune_gpu.telemetry.verdicts import Limits, SampleSeries, judge, unchecked

NOW = Frame({7: 512.0, 21: 1000.0})
INFO = {"uuid": UUID, "total_mib": 12288.0, "driver": "550.54.14"}
READING = {
    "utilization_pct": 90.0, "used_mib": 8000.0, "clock_mhz": 1900.0, "power_w": 150.0, "energy_j": 1015.0, "temperature_c": 65.0,
    "throttled": frozenset(), "processes": {7: 512.0, 21: 1000.0},
}  # fmt: skip

NULL = {
    "nvmlDeviceGetMemoryInfo": {"total_mib", "used_mib"},
    "nvmlDeviceGetUUID": {"uuid"},
    "nvmlSystemGetDriverVersion": {"driver"},
    "nvmlDeviceGetPowerUsage": {"power_w"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_j"},
    "nvmlDeviceGetUtilizationRates": {"utilization_pct"},
    "nvmlDeviceGetClockInfo": {"clock_mhz"},
    "nvmlDeviceGetTemperature": {"temperature_c"},
    "nvmlDeviceGetCurrentClocksThrottleReasons": {"throttled"},
    "nvmlDeviceGetComputeRunningProcesses": {"processes"},
    "nvmlDeviceGetMPSComputeRunningProcesses": set(),
    "nvmlDeviceGetGraphicsRunningProcesses": set(),
    "nvmlDeviceGetMigMode": set(),
}
"""Function -> what is null where it is not answered."""
NOT_ASKED = {
    "nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceGetCount", "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", "nvmlDeviceGetComputeMode", "nvmlShutdown",
    "nvmlSystemGetCudaDriverVersion",
}  # fmt: skip
"""While a whole card that is found and has memory of its own is opened and read."""


def called() -> set[str]:
    source = "".join(inspect.getsource(module) for module in (nvml, nvml_answers, doctor))
    listed = {f"nvmlDeviceGet{kind}RunningProcesses" for kind in ("Compute", "MPSCompute", "Graphics")}
    return listed | set(re.findall(r'"(nvml[A-Z]\w+)"', source))


def opened(function: str, error: str, device: str = UUID) -> NvmlProbe:
    fake = FakeNvml([NOW])
    fake.raises[function] = ERRORS[error]
    return NvmlProbe(device, fake)


def test_every_function_that_is_called_has_an_intended_outcome() -> None:
    assert called() == NULL.keys() | NOT_ASKED | REQUIRED


def test_every_error_code_of_the_library_is_among_those_tried() -> None:
    codes = {value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    tried: list[Any] = [error("") for error in ERRORS.values() if issubclass(error, pynvml.NVMLError)]
    assert codes == {error.value for error in tried}
    assert ERRORS.keys() > CARD_LOST


@pytest.mark.parametrize(
    ("function", "error"), sorted(set(itertools.product(NULL, ERRORS.keys() - CARD_LOST)) - {("nvmlDeviceGetMemoryInfo", "NotSupported")})
)  # that one says that the memory is the host's
def test_an_unanswered_question_makes_its_own_reading_null(function: str, error: str) -> None:
    probe = opened(function, error)
    found = vars(probe.info) | vars(probe.read())
    expected = {name: None if name in NULL[function] else value for name, value in (INFO | READING).items()}
    assert {name: found[name] for name in expected} == expected
    reading = probe.read()
    assert judge(SampleSeries([reading] * 5, {"whisper": {21}}, {7}), Limits()) == [], "a window on such a card counts"
    assert bool(unchecked(SampleSeries([reading] * 5, neighbours={7}), Limits())) == bool(
        NULL[function] & {"utilization_pct", "clock_mhz", "throttled", "processes"}
    )
    beside = neighbours_on(probe, [21])
    assert (beside.mib is None) == bool(NULL[function] & {"used_mib", "processes"}), "unknown, and not 0"
    assert beside.pids == (None if "processes" in NULL[function] else {7})
    probe.close()


@pytest.mark.parametrize("function", sorted(NULL.keys() | REQUIRED - {"nvmlDeviceGetHandleByIndex"}))
@pytest.mark.parametrize("error", sorted(CARD_LOST))
def test_a_card_that_is_lost_ends_the_measurement_whatever_is_asked(function: str, error: str) -> None:
    with pytest.raises(ServiceError, match=r"^tune_gpu: measurement_invalid .*: NVML: .*\(" + function) as caught:
        opened(function, error).read()
    assert caught.value.failure.kind is FailureKind.MEASUREMENT_INVALID


@pytest.mark.parametrize("error", sorted(ERRORS.keys() - CARD_LOST))
def test_what_a_run_cannot_do_without_is_required(error: str) -> None:
    for function, device, kind in (
        ("nvmlInit", UUID, FailureKind.MEASUREMENT_INVALID),
        ("nvmlDeviceGetName", UUID, FailureKind.MEASUREMENT_INVALID),
        ("nvmlDeviceGetHandleByIndex", "0", FailureKind.WRONG_DEVICE),
    ):
        with pytest.raises(ServiceError) as caught:
            opened(function, error, device)
        assert caught.value.failure.kind is kind
    probe = opened("nvmlDeviceGetHandleByUUID", error)
    assert probe.info.uuid == UUID, "found by its number"
    probe.close()


def test_an_error_code_of_the_future_leaves_a_question_unanswered() -> None:
    fake = FakeNvml([NOW])
    fake.raises["nvmlDeviceGetPowerUsage"] = lambda _text: pynvml.NVMLError(4711)  # type: ignore[assignment]
    probe = NvmlProbe("0", fake)
    assert probe.read().power_w is None
    probe.close()


def test_a_question_that_is_not_answered_now_may_be_answered_later() -> None:
    fake = FakeNvml([NOW])
    fake.raises["nvmlDeviceGetPowerUsage"] = ERRORS["NoData"]
    probe = NvmlProbe("0", fake)
    assert probe.read().power_w is None
    fake.raises.clear()
    assert probe.read().power_w == 150.0
    probe.close()


def test_a_function_that_this_pynvml_lacks_is_one_without_an_answer() -> None:
    class Older(FakeNvml):
        nvmlDeviceGetTotalEnergyConsumption = property()

    probe = NvmlProbe("0", Older([NOW]))
    assert probe.read().energy_j is None
    probe.close()


@pytest.mark.parametrize("value", [None, -1, 2**32 - 1, 2**64 - 1, "[N/A]", math.nan, math.inf])
def test_a_number_that_means_not_available_is_null(value: Any) -> None:
    assert number(value) is None
    fake = FakeNvml([NOW])
    fake.returns = {
        "nvmlDeviceGetPowerUsage": value, "nvmlDeviceGetTotalEnergyConsumption": value, "nvmlDeviceGetClockInfo": value,
        "nvmlDeviceGetTemperature": value, "nvmlDeviceGetCurrentClocksThrottleReasons": value,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=value, memory=0),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=value, used=value, free=value),
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=21, usedGpuMemory=value)],
    }  # fmt: skip
    probe = NvmlProbe("0", fake)
    found = vars(probe.read())
    assert found.pop("processes") == {21: None}
    assert set(found.values()) == {None}
    assert probe.info.total_mib is None
    probe.close()


def test_a_clock_or_a_power_of_0_is_no_reading_of_a_card_that_runs() -> None:
    fake = FakeNvml([NOW])
    fake.returns = {"nvmlDeviceGetPowerUsage": 0, "nvmlDeviceGetClockInfo": 0, "nvmlDeviceGetTemperature": 0}
    probe = NvmlProbe("0", fake)
    reading = probe.read()
    assert (reading.power_w, reading.clock_mhz, reading.temperature_c) == (None, None, 0.0)
    probe.close()


def test_memory_that_one_list_does_not_tell_another_may() -> None:
    fake = FakeNvml([NOW])
    fake.returns = {
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=21, usedGpuMemory=None), SimpleNamespace(pid=32, usedGpuMemory=5 * MIB)],
        "nvmlDeviceGetGraphicsRunningProcesses": [SimpleNamespace(pid=21, usedGpuMemory=3 * MIB), SimpleNamespace(pid=32, usedGpuMemory=None)],
    }
    probe = NvmlProbe("0", fake)
    assert probe.read().processes == {21: 3.0, 32: 5.0}
    probe.close()


@pytest.mark.parametrize("name", ["NVIDIA GB10", "NVIDIA Thor", "Orin (nvgpu)", "a card of tomorrow"])
@pytest.mark.parametrize("answer", ["NotSupported", "total of 0"])
def test_a_card_without_memory_of_its_own_has_the_hosts(monkeypatch: pytest.MonkeyPatch, name: str, answer: str) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=125000 * MIB, available=115000 * MIB))
    fake = FakeNvml([NOW], unsupported={"memory"} if answer == "NotSupported" else set())
    fake.name = name.encode()
    if answer != "NotSupported":
        fake.returns["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(total=0, used=0, free=0)
    probe = NvmlProbe("0", fake)
    assert (probe.info.total_mib, probe.info.shares_host_memory, probe.read().used_mib) == (125000.0, True, 10000.0)
    probe.close()


def test_a_card_with_a_bar1_has_memory_of_its_own_and_not_the_hosts() -> None:
    fake = FakeNvml([NOW], unsupported={"memory"})
    fake.bar1_mib = 256.0
    probe = NvmlProbe("0", fake)
    assert (probe.info.total_mib, probe.info.shares_host_memory, probe.read().used_mib) == (None, False, None)
    probe.close()


def test_a_mig_instance_whose_card_is_not_named_has_its_own_readings() -> None:
    probe = opened("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", "Unknown", MIG)
    reading = probe.read()
    assert (reading.clock_mhz, reading.throttled, reading.used_mib) == (None, None, 8000.0)
    probe.close()


def test_another_card_that_is_lost_says_nothing_of_this_one() -> None:
    class OneLost(FakeNvml):
        def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
            if index == 0:
                raise self.NVMLError_GpuIsLost()
            return super().nvmlDeviceGetHandleByIndex(index)

    probe = NvmlProbe("GPU-1a2b", OneLost([NOW]))
    assert probe.info.uuid == OTHER
    assert "none of this machine's other cards has those of the service" in probe.other_devices_of([99])
    probe.close()


@pytest.mark.parametrize("error", sorted(ERRORS))
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlShutdown", "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetComputeMode"])
def test_the_doctor_says_what_it_can_of_a_driver_that_says_little(function: str, error: str) -> None:
    fake: Any = FakeNvml([NOW])
    fake.raises[function] = ERRORS[error]
    driver = doctor.read_driver(fake)
    required = function in ("nvmlInit", "nvmlDeviceGetCount") or (function != "nvmlShutdown" and error in CARD_LOST)
    assert bool(driver.error) == required
    assert all(finding.found for finding in [*doctor.check_driver(driver, []), check_cuda(Machine("cuda", driver.cuda), "12.8")])
