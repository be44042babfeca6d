"""What the gate of a promotion makes of memory that a card does not report: said, and never passed silently."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.made_run import FAST, line
from tests.unit.promote.test_gate import ScriptedClient, comparison, evidence, unmet, window
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.gate import TargetDevice, conditions
from tune_gpu.promote.soak import Soak, hold_under_load, judge_soak


def soaked(*windows: dict[str, Any]) -> Soak:
    client = ScriptedClient([*windows, {"failure": {"kind": "end", "message": ""}}])
    soak = hold_under_load(client, FAST, 60.0, lambda _line: None)
    soak.failure = None
    return soak


def unknown(**change: Any) -> dict[str, Any]:
    return window(0.0, service_memory_mib={"vllm": None, "whisper": 900.0}, **change)


def test_growth_that_cannot_be_known_is_said_and_does_not_pass() -> None:
    condition = judge_soak(soaked(*[unknown(device_memory_mib=None)] * 6), 5.0)
    assert not condition.holds
    assert condition.said.startswith("whether the memory of vllm grows is unknown: the card reports neither a process's memory nor its own")


def test_the_devices_memory_speaks_for_a_service_whose_own_is_unknown() -> None:
    steady = judge_soak(soaked(*[unknown(device_memory_mib=8000.0)] * 6), 5.0)
    assert steady.holds
    assert "vllm: judged by the memory of the whole device" in steady.said
    growing = Soak(60.0, 60.0, 50, device_memory_mib=[(float(t), 8000.0 + 30.0 * t) for t in range(40)])
    growing.memory_unknown["vllm"] = 40
    condition = judge_soak(growing, 5.0)
    assert not condition.holds
    assert condition.said.startswith("the device's memory grew by 1140 MiB")


@pytest.mark.parametrize(("known", "holds"), [(1, False), (19, False), (20, True), (39, True)])
def test_a_service_is_judged_by_its_own_memory_where_most_windows_have_it(known: int, holds: bool) -> None:
    soak = Soak(60.0, 60.0, 50, memory_mib={"vllm": [(float(t), 1000.0) for t in range(known)]})
    soak.memory_unknown["vllm"] = 40 - known
    assert judge_soak(soak, 5.0).holds is holds


def test_the_record_of_a_soak_has_what_was_unknown() -> None:
    content = soaked(*[unknown(device_memory_mib=8000.0)] * 2).as_dict()
    assert (content["memory_unknown"], [mib for _, mib in content["device_memory_mib"]]) == ({"vllm": 2}, [8000.0, 8000.0])
    assert list(content["growth_mib"]) == ["whisper"], "no growth of 0 for one that is unknown"


def test_unknown_neighbours_of_the_measurement_count_as_none() -> None:
    blind = evidence(comparison(memory_in_use_at_start_mib=None))
    why = unmet(blind, TargetDevice("cpu", None, 3000.0))["neighbours"]
    assert why == "the memory that others used during the measurement is unknown and counts as 0, the target has 3000 MiB"
    assert "neighbours" not in unmet(blind, TargetDevice("cpu", None, 100.0)), "as many as it had at the least, and the tolerance"


def test_a_device_that_proved_nothing_is_said_in_the_condition() -> None:
    message = "it is not proven that vllm is on NVIDIA GeForce RTX 3060: NVML does not report which processes are on it"
    winner = line("g1-c2", FAST, 0.6)
    winner.metrics["unchecked"] = [message, "something else"]
    found = {condition.name: condition for condition in conditions(evidence(comparison(), winner), TargetDevice("cpu", None, 0.0), PromoteSettings())}
    assert found["device"].holds
    assert found["device"].said.endswith(f"; {message}")
