"""A card that reports less loses metrics, not runs: whole evaluations, soaks and checks on made-up cards (`tests/benchmarks/nvml_answers.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from tests.benchmarks import nvml_answers
from tests.benchmarks.nvml_answers import result_of
from tests.support.servers import Behaviour, servers
from tune_gpu.cli import launch
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.services.deployment import resolve
from tune_gpu.telemetry.device_choice import DeviceChoice, read_from_the_card
from tune_gpu.workload.traffic import Traffic

BLIND = {
    "nvmlDeviceGetMemoryInfo": "NVMLError_NoPermission",
    "nvmlDeviceGetUtilizationRates": "NVMLError_NotSupported",
    "nvmlDeviceGetClockInfo": "NVMLError_Unknown",
    "nvmlDeviceGetPowerUsage": "NVMLError_NoData",
    "nvmlDeviceGetTotalEnergyConsumption": "NVMLError_NotSupported",
    "nvmlDeviceGetTemperature": "NVMLError_Timeout",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "NVMLError_Deprecated",
    "nvmlDeviceGetComputeRunningProcesses": "NVMLError_NotSupported",
    "nvmlDeviceGetUUID": "NVMLError_Unknown",
    "nvmlSystemGetDriverVersion": "NVMLError_Unknown",
}
"""A card of which only the name is known."""


@pytest.fixture(scope="module")
def traffic() -> Iterator[Traffic]:
    with servers(Behaviour(stt_s=0.001, first_token_s=0.001)) as found:
        yield found


def test_a_laptop_without_power_has_no_power_and_a_window_that_counts(traffic: Traffic) -> None:
    found = result_of({"where": "some laptops", "raises": {"nvmlDeviceGetPowerUsage": "NVMLError_NoData"}, "want": "power null"}, traffic)
    assert (found["window"], found["device_proof"], found["memory_returned"], found["unchecked"]) == ("ok", "proven", "yes", [])
    assert (found["readings"]["power_w"], found["want"]) == (None, "power null")
    assert found["energy_per_request_j"] > 0, "by the card's own counter"
    assert found["soak"]["holds"]
    assert found["objectives_refused"] == {}


def test_a_jetson_has_the_hosts_memory(traffic: Traffic) -> None:
    found = result_of({"name": "NVIDIA Thor", "raises": {"nvmlDeviceGetMemoryInfo": "NVMLError_NotSupported"}}, traffic)
    host_mib = psutil.virtual_memory().total / 2**20
    assert (found["window"], found["card"]["shares_host_memory"]) == ("ok", True)
    assert found["card"]["total_mib"] == pytest.approx(host_mib)
    assert found["preflight"] == f"{host_mib * 0.981:.0f} MiB"
    assert found["service_memory_mib"] == {"vllm": 6000.0, "whisper": 1000.0}


def test_a_card_that_reports_only_its_name_loses_metrics_and_no_run(traffic: Traffic) -> None:
    known, blind = result_of({}, traffic), result_of({"raises": BLIND}, traffic)
    assert blind["window"] == "ok"
    lost = set(blind["null_metrics"]) - set(known["null_metrics"])
    assert lost == read_from_the_card().keys(), "each of them is refused as an objective before a run, and nothing else needs to be"
    assert blind["objectives_refused"].keys() == read_from_the_card().keys()
    assert "does not report its utilisation" in blind["efficiency_refused"]
    assert blind["device_proof"].startswith("it is not proven that whisper is on NVIDIA GeForce RTX 3060")
    assert blind["memory_returned"] == "whether the card's memory has come back is not known: the card does not report it"
    assert blind["neighbours"] == {"memory_mib": None, "utilization_pct": None, "processes": None}
    assert not blind["soak"]["holds"]
    assert "is unknown" in blind["soak"]["said"]
    assert "does not report its memory" in blind["preflight"]


def test_processes_whose_memory_is_not_reported_prove_the_device(traffic: Traffic) -> None:
    listed = [{"pid": 7, "usedGpuMemory": None}, {"pid": 21, "usedGpuMemory": 2**64 - 1}, {"pid": 32, "usedGpuMemory": None}]
    found = result_of({"where": "a vGPU", "returns": {"nvmlDeviceGetComputeRunningProcesses": listed}}, traffic)
    assert (found["window"], found["device_proof"], found["service_memory_mib"]) == ("ok", "proven", {"vllm": None, "whisper": None})
    assert "judged by the memory of the whole device" in found["soak"]["said"]
    assert found["objectives_refused"].keys() == {"service_memory_mib.vllm", "service_memory_mib.whisper"}


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetPowerUsage"])
def test_a_card_that_is_lost_is_measurement_invalid(traffic: Traffic, function: str) -> None:
    found = result_of({"raises": {function: "NVML_ERROR_GPU_IS_LOST"}}, traffic)
    assert found["window"] == f"measurement_invalid: NVML: GPU is lost ({function})"
    assert not found["soak"]["holds"]


def test_without_its_memory_a_run_starts_and_the_preflight_is_left_out() -> None:
    config = load_config("spica_gpu_allocation", [], "cuda")
    messages: list[str] = []
    with nvml_answers.card_of({"raises": {"nvmlDeviceGetMemoryInfo": "Unknown"}}):
        refusals = launch._plan(config, DeviceChoice("cuda", "made up", 1))
        gate = PreflightCheck(config, "cuda", messages.append)
        gate.check(resolve(config, {"vllm_memory_util": 0.99, "whisper_model_size": "large-v3"}, "cuda"))
        gate.about_to_start()
    assert "does not report its memory" in refusals.note
    assert ["preflight: left out, because" in line for line in messages] == [True]


def test_the_benchmark_reads_a_file_and_writes_what_it_found(tmp_path: Path) -> None:
    cards: list[dict[str, Any]] = [{"where": "here", "raises": {"nvmlDeviceGetTemperature": "NoData"}, "now": "?", "something": "else"}]
    (tmp_path / "cards.json").write_text(json.dumps(cards))
    ended = CliRunner().invoke(nvml_answers.main, [str(tmp_path / "cards.json"), "--json", str(tmp_path / "out.json")])
    assert ended.exit_code == 0, ended.output
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert (found["where"], found["now"], found["readings"]["temperature_c"], found["window"]) == ("here", "?", None, "ok")
    assert "temperature_c" in ended.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"), ("{}", "is no list"), ("[3]", "card 0: it is no object"), ('[{}, {"raises": ["NoData"]}]', "card 1: raises: it is no object"),
        ('[{"raises": {"nvmlDeviceGetFoo": "NoData"}}]', "raises.nvmlDeviceGetFoo: it is no function"), ('[{"returns": {"len": 3}}]', "returns.len"),
        ('[{"raises": {"nvmlInit": "Nope"}}]', "Nope is no error"), ('[{"raises": {"nvmlInit": 5}}]', "5 is no error"), ('[{"bar1_mib": "x"}]', "bar1_mib=x"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_cards_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "cards.json").write_text(content)
    ended = CliRunner().invoke(nvml_answers.main, [str(tmp_path / "cards.json")])
    assert (ended.exit_code, ended.output.count("\n")) == (2, 1)
    assert message in ended.output
