"""Every condition is named with what it found, and one that is not met refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_run import DEVICE, EXPERIMENT, FAST, RUN_ID, SLOW, line, made_run
from tests.unit.promote.compared import write_comparison
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.cli.main import main
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.gate import Evidence, TargetDevice, conditions
from tune_gpu.promote.soak import Soak, growth_mib, hold_under_load, judge_soak

SETTINGS = PromoteSettings()
HERE = TargetDevice("cpu", "a processor", 500.0)


def finding(metric: str, estimate: float, verdict: str, *, unit: str = "%", more: bool = False, tolerance: float = 10.0) -> dict[str, Any]:
    effect = {"estimate": estimate, "low": estimate - 5, "high": estimate + 5, "ours": 900.0, "theirs": 1200.0}
    return {
        "metric": metric, "verdict": verdict, "unit": unit, "higher_is_better": more, "effect": effect, "tolerance": tolerance,
    }  # fmt: skip


def arm(params: dict[str, Any]) -> dict[str, Any]:
    return {"params": params, "n_deployments": 4, "oom_events": 0}


def comparison(**change: Any) -> Comparison:
    content = {
        "schema_version": 1, "run_id": RUN_ID, "confirmed": True, "confirmed_why": "shown better", "device": DEVICE, "ended_at": "2026",
        "memory_in_use_at_start_mib": 500.0, "ours": "winner", "theirs": "baseline", "sentence": "winner answers sooner",
        "arms": {"winner": arm(FAST), "baseline": arm(SLOW)}, "confidence": 0.95, "interval_confidence": 0.95,
        "findings": [
            finding("voice_turn_ms.p95", -30.0, "better"),
            finding("wer", 0.002, "no difference shown", unit="WER", tolerance=0.01),
            finding("capacity", 1.0, "better", unit="callers", more=True, tolerance=0.5),
        ],
    }  # fmt: skip
    return Comparison.parse(content | change, "a comparison")


def unmet(evidence: Evidence, target: TargetDevice = HERE, settings: PromoteSettings = SETTINGS) -> dict[str, str]:
    return {condition.name: condition.said for condition in conditions(evidence, target, settings) if not condition.holds}


def evidence(content: Comparison | None, *lines: EvaluationRecord) -> Evidence:
    return Evidence(FAST, content, lines or [line("g0-c1", FAST, 0.6)], DeviceRecord.parse(DEVICE, "a device"))


def test_a_winner_that_meets_all_conditions_passes() -> None:
    assert unmet(evidence(comparison())) == {}


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"confirmed": False, "confirmed_why": "the budget ended"}, "confirmed", "the budget ended"),
        ({"arms": {"winner": arm(SLOW), "baseline": arm(SLOW)}}, "confirmed", "compare again"),
        ({"device": {"kind": "replayed"}}, "device", "measured on 'replayed', which is not a real device"),
        ({"device": {"kind": "simulated"}}, "device", "such results are never deployed"),
        ({"memory_in_use_at_start_mib": 0.0}, "", ""),
        ({"findings": [finding("voice_turn_ms.p95", -8.0, "better")]}, "gain", "is 8.0 % better .*required: shown to be better, by at least 10 %"),
        ({"findings": [finding("voice_turn_ms.p95", 66.0, "worse")]}, "gain no_worse", r"p95 is 66\.0 % worse than the baseline's"),
        ({"findings": [finding("voice_turn_ms.p95", -30.0, "no difference shown")]}, "gain", "no difference shown"),
        ({"findings": []}, "gain", "voice_turn_ms.p95 was not compared"),
        (
            {"findings": [finding("voice_turn_ms.p95", -30.0, "better"), finding("wer", 0.03, "worse", unit="WER", tolerance=0.01)]},
            "no_worse",
            r"wer is worse by 0\.03 WER \(tolerated: 0\.01\)",
        ),
        (
            {"findings": [finding("voice_turn_ms.p95", -30.0, "better"), finding("capacity", -2.0, "worse", unit="callers", more=True)]},
            "",
            "",
        ),
        (
            {
                "findings": [
                    finding("voice_turn_ms.p95", -30.0, "better"),
                    finding("capacity", -2.0, "worse", unit="callers", more=True, tolerance=0.5),
                ]
            },
            "no_worse",
            "capacity is worse by 2 callers",
        ),
    ],
)
def test_each_condition_refuses_by_its_own_name(change: dict[str, Any], name: str, message: str) -> None:
    found = unmet(evidence(comparison(**change)))
    assert list(found) == name.split()
    if name:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(found[name.split()[0]])


def test_what_was_measured_on_a_cpu_never_passes_for_cuda() -> None:
    assert unmet(evidence(comparison()), TargetDevice("cuda", None, 0.0))["device"] == "measured on cpu, the target is cuda"
    of_card = {"kind": "cuda", "name": "NVIDIA GeForce RTX 3060"}
    other = TargetDevice("cuda", "NVIDIA H100 80GB HBM3", 0.0)
    assert "the target is NVIDIA H100" in unmet(evidence(comparison(device=of_card)), other)["device"]
    assert unmet(evidence(comparison(device=of_card)), TargetDevice("cuda", of_card["name"], 0.0)) == {}


def test_memory_and_neighbours_are_asked_about() -> None:
    crowded = TargetDevice("cpu", None, 3000.0)
    assert "measured beside 500 MiB of others, the target has 3000 MiB" in unmet(evidence(comparison()), crowded)["neighbours"]
    assert "set promote.neighbours_mib" in unmet(evidence(comparison()), TargetDevice("cpu", None, None))["neighbours"]
    killed = line("g1-c2", FAST, 0.6)
    killed.metrics["oom_events"] = 2
    assert unmet(evidence(comparison(), killed))["oom"] == "2 out-of-memory events while the winner was measured"
    for kind in ("startup_oom", "oom", "oom_killed"):
        failed = line("g1-c2", FAST, None, failure={"kind": kind, "message": "no room", "retryable": False})
        assert "ran out of memory in g1-c2" in unmet(evidence(comparison(), failed))["oom"]
    assert "run tune-gpu compare" in unmet(evidence(None))["confirmed"]


@given(slope=st.floats(0.5, 5.0), start=st.floats(100.0, 5000.0), spikes=st.lists(st.integers(2, 28), max_size=3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_growth_is_seen_through_single_peaks_and_peaks_are_no_growth(slope: float, start: float, spikes: list[int], seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 0.3, 30)
    steady = [(float(t), start + float(noise[t])) for t in range(30)]
    for spike in spikes:
        steady[spike] = (float(spike), start + 200.0)
    assert growth_mib(steady) < 8.0
    growing = [(t, m + slope * t) for t, m in steady]
    assert growth_mib(growing) == pytest.approx(slope * 28.0, rel=0.35)


class ScriptedClient:
    """Answers from a list, as the measuring actor would."""

    def __init__(self, windows: list[dict[str, Any]], start: dict[str, Any] | None = None) -> None:
        self.windows, self.start = windows, start

    def hold(self, params: Any) -> dict[str, Any] | None:
        return self.start

    def load(self) -> dict[str, Any]:
        return self.windows.pop(0)


def window(memory: float, *errors: str, **change: Any) -> dict[str, Any]:
    return {
        "failure": None, "n_requests": 5, "errors": list(errors), "service_memory_mib": {"vllm": memory}, "oom_events": 0,
    } | change  # fmt: skip


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (ScriptedClient([], {"kind": "startup_oom", "message": "no room"}), "startup_oom after 0 s: no room"),
        (ScriptedClient([window(100.0), {"failure": {"kind": "service_lost", "message": "died"}}]), "service_lost after"),
        (ScriptedClient([window(100.0, "stt_timeout"), window(100.0, failure={"kind": "x", "message": ""})]), "1 stt_timeout"),
    ],
)
def test_a_soak_ends_at_the_first_failure_and_says_it(client: ScriptedClient, message: str) -> None:
    condition = judge_soak(hold_under_load(client, FAST, 60.0, lambda _line: None), 5.0)
    assert not condition.holds
    assert message in condition.said


def test_soak_passes_without_failures_and_without_growing_memory() -> None:
    quiet = hold_under_load(ScriptedClient([window(100.0)] * 3), FAST, 0.0, lambda _line: None)
    assert quiet.n_requests == 5
    assert judge_soak(quiet, 5.0).holds
    growing = Soak(60.0, 60.0, 50, memory_mib={"vllm": [(float(t), 1000.0 + 3.0 * t) for t in range(40)]})
    condition = judge_soak(growing, 5.0)
    assert not condition.holds
    assert "vllm's memory grew by 114 MiB" in condition.said
    assert judge_soak(replace(growing, memory_mib={"vllm": [(0.0, 500.0)] + [(float(t), 1000.0) for t in range(1, 40)]}), 5.0).holds
    assert not judge_soak(replace(growing, memory_mib={}, oom_events=1), 5.0).holds


def refused(root: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        main, ["promote", *arguments, f"run.artifacts_dir={root}", f"promote.install_dir={root}/etc", "promote.target=process"]
    )
    return result.exit_code, result.output


def test_refusal_names_every_condition_and_leaves_nothing_to_apply(tmp_path: Path) -> None:
    write_comparison(made_run(tmp_path), confirmed=False, confirmed_why="the budget of 60 s ended")
    code, output = refused(tmp_path, RUN_ID, "--apply", "promote.device=cuda", "promote.neighbours_mib=9000", "--json")
    assert code == 1, output
    assert "refused: confirmed, device, neighbours; nothing was deployed" in output
    assert "confirmed: NOT MET: the budget of 60 s ended" in output
    folder = tmp_path / "promotions" / EXPERIMENT / RUN_ID
    verdict = json.loads((folder / "gate.json").read_text())
    assert verdict["passed"] is False
    assert {c["name"] for c in verdict["conditions"] if not c["holds"]} == {"confirmed", "device", "neighbours"}
    assert [path.name for path in folder.iterdir()] == ["gate.json"]
    assert not (tmp_path / "etc").exists()


def test_a_run_that_is_named_by_its_folder_keeps_its_own_files(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    write_comparison(folder, confirmed=False)
    run = folder.path
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, output = refused(tmp_path, str(run), "promote.device=cpu")
    assert code == 1, output
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    verdict = json.loads((tmp_path / "promotions" / EXPERIMENT / RUN_ID / "gate.json").read_text())
    assert verdict["run_id"] == RUN_ID


@pytest.mark.parametrize(
    "spoilt",
    [
        {"ours": "somebody"},
        {"arms": {"winner": None}},
        {"memory_in_use_at_start_mib": "much"},
        {"arms": {"winner": {"params": FAST}, "baseline": {"params": SLOW}}},
        {"confidence": "sure"},
        {"findings.effect": {"estimate": None}},
        {"findings.effect": {"estimate": 0.1}},
        {"findings.effect": finding("voice_turn_ms.p95", 10**400, "better")["effect"] | {"n_rounds": 4, "n_pairs": 24}},
    ],
)
def test_a_comparison_that_this_program_did_not_write_is_one_line(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    folder = made_run(tmp_path)
    content = write_comparison(folder, **{key: value for key, value in spoilt.items() if "." not in key})
    if effect := spoilt.get("findings.effect"):
        content["findings"][0]["effect"] = effect
        folder.write_json("comparison.json", content)
    code, output = refused(tmp_path, RUN_ID, "promote.device=cpu", "promote.neighbours_mib=0")
    assert (code, "not written by this program" in output) == (2, True), output
    (_,) = output.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN_ID: missing"),
        (["--rollback"], "nothing that promote installed is in force"),
        (["nothing"], "no such run"),
        ([RUN_ID, "--apply", "--rollback"], "exclude each other. Give one of them"),
        ([RUN_ID, "promote.device=tpu"], "promote.device=tpu: not allowed. Set one of auto, cpu, cuda"),
        ([RUN_ID, "promote.target=kubernetes"], "promote.target=kubernetes: not allowed. Set one of systemd, process"),
        ([RUN_ID, "promote.vllm.url=somewhere"], "promote.vllm.url=somewhere: not an address. Set http://HOST:PORT"),
        ([RUN_ID, "promote.speed=1"], "promote.speed: no such key"),
        ([RUN_ID, "promote.metric=speed"], "promote.metric=speed: not allowed"),
        ([RUN_ID, "promote.device=cuda", "promote.target=process", "--out", __file__], "Not a directory"),
    ],
)
def test_promote_says_what_is_wrong_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_comparison(made_run(tmp_path))
    result = CliRunner().invoke(
        main, ["promote", f"run.artifacts_dir={tmp_path}", f"promote.install_dir={tmp_path}/etc", *arguments]
        if not arguments or arguments[0].startswith("--")
        else ["promote", *arguments, f"run.artifacts_dir={tmp_path}", f"promote.install_dir={tmp_path}/etc"],
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert message in result.output.strip().splitlines()[-1]
