"""What a command line changes: a mapping that is given whole replaces, a longer key merges, and `~key` removes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import apply_overrides, device_setting, load_config, load_settings, raw_setting
from tune_gpu.config.overrides import is_override, last_given
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.metrics import PAIR

SPACE = {
    "objective": {"weights": {"wer": 1.0, "capacity": 2.0}},
    "parameters": {"share": {"target": "vllm.gpu_memory_utilization", "values": [0.1, 0.2]}, "beam": {"target": "whisper.beam_size", "low": 1, "high": 5, "step": 1}},
    "baseline": {"share": 0.1, "beam": 1},
    "services": {"vllm": {"extra_args": {"seed": 1, "hf_overrides": {"a": 1, "b": 2}, "kv-transfer.x": 3}, "env": {"A": "1"}, "max_num_seqs": 4}},
    "search": {"generations": 7},
    "devices": {"cpu": {"objective": {"weights": {"wer": 3.0}}, "services": {"vllm": {"env": {"B": "2"}}}}},
}  # fmt: skip


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return str(path)


@pytest.mark.parametrize(
    ("overrides", "of", "expected"),
    [
        (["objective.weights={capacity: 1}"], "objective.weights", {"capacity": 1.0}),
        (["objective.weights.capacity=1"], "objective.weights", {"wer": 1.0, "capacity": 1.0}),
        (["objective={weights: {capacity: 1}}"], "objective.weights", {"capacity": 1.0}),
        (["objective.weights={capacity: 1}", "objective.weights.wer=2"], "objective.weights", {"capacity": 1.0, "wer": 2.0}),
        (["objective.weights.wer=2", "objective.weights={capacity: 1}"], "objective.weights", {"capacity": 1.0}),
        (["~objective.weights.wer"], "objective.weights", {"capacity": 2.0}),
        (["~objective.weights"], "objective.weights", {}),
        (["~objective.weights.wer", "objective.weights.wer=5"], "objective.weights", {"capacity": 2.0, "wer": 5.0}),
        (["confirm.tolerances={wer: 0.5}"], "confirm.tolerances", {"wer": 0.5}),
        (["confirm.tolerances={wer: 0.5, ttft_ms: {p95: 7}}"], "confirm.tolerances", {"wer": 0.5, "ttft_ms.p95": 7.0}),
        (["confirm.tolerances.ttft_ms.p95=7"], "confirm.tolerances", PAIR.tolerances() | {"ttft_ms.p95": 7.0}),
        (["confirm.tolerances.ttft_ms.p95=7", "~confirm.tolerances.ttft_ms.p95"], "confirm.tolerances", PAIR.tolerances()),
        (["search.objectives.ttft_ms.p95=min", "search.objectives={wer: min}"], "search.objectives", {"wer": "min"}),
        (["search.objectives={wer: min}", "search.objectives.ttft_ms.p95=min"], "search.objectives", {"wer": "min", "ttft_ms.p95": "min"}),
        (["objective.limits.ttft_ms.p95=300"], "objective.limits", {"ttft_ms.p95": 300.0}),
        (["services.vllm.extra_args={swap_space: 1}"], "services.vllm.extra_args", {"swap_space": 1}),
        (["services.vllm.extra_args={}"], "services.vllm.extra_args", {}),
        (["services.vllm.extra_args.hf_overrides={b: 3}"], "services.vllm.extra_args", {"seed": 1, "hf_overrides": {"b": 3}, "kv-transfer.x": 3}),
        (["services.vllm.extra_args.hf_overrides.b=3"], "services.vllm.extra_args.hf_overrides", {"a": 1, "b": 3}),
        (["~services.vllm.extra_args.hf_overrides.b"], "services.vllm.extra_args.hf_overrides", {"a": 1}),
        (["~services.vllm.extra_args.kv-transfer.x"], "services.vllm.extra_args", {"seed": 1, "hf_overrides": {"a": 1, "b": 2}}),
        (["services={vllm: {env: {C: '3'}}}"], "services.vllm.env", {"C": "3"}),
        (["services={vllm: {env: {C: '3'}}}"], "services.vllm.max_num_seqs", 4),
        (["search={seed: 3}"], "search.generations", 7),
        (["~search.generations"], "search.generations", 4),
        (["~search"], "search.generations", 4),
        (["~services.vllm.max_num_seqs"], "services.vllm.max_num_seqs", None),
        (["~parameters.beam.low", "~parameters.beam.high", "~parameters.beam.step", "parameters.beam.values=[1,2]"], "parameters.beam.low", None),
        (["parameters.share={values: [0.3]}"], "parameters.share.target", "vllm.gpu_memory_utilization"),
        (["baseline={share: 0.2}"], "baseline", {"share": 0.2}),
        (["~baseline.beam"], "baseline", {"share": 0.1}),
    ],
)
def test_a_whole_mapping_replaces_and_a_longer_key_merges(space: str, overrides: list[str], of: str, expected: Any) -> None:
    found: Any = load_config(space, overrides, trust=True)
    for key in of.split("."):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == expected


def test_a_knob_can_be_removed_and_the_set_replaced(space: str) -> None:
    assert list(load_config(space, ["~parameters.beam", "~baseline.beam"], trust=True).parameters) == ["share"]
    assert list(load_config(space, ["parameters={wide: {target: whisper.beam_size, values: [1, 9]}}", "~baseline"], trust=True).parameters) == ["wide"]


def test_a_mapping_of_a_file_replaces_a_default_and_an_overlay_merges(space: str, tmp_path: Path) -> None:
    path = tmp_path / "tolerances.yaml"
    path.write_text("confirm: {tolerances: {wer: 0.02}}\n")
    assert load_config(str(path), []).confirm.tolerances == {"wer": 0.02}
    assert load_settings(path, ("confirm",), []).confirm.tolerances == {"wer": 0.02}
    of_cpu = load_config(space, [], "cpu", trust=True)
    assert of_cpu.objective.weights == {"wer": 3.0, "capacity": 2.0}
    assert of_cpu.services.vllm.env == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~objective.weights.war", r"^~objective\.weights\.war: no such key \(did you mean wer\?\)\. Under objective\.weights the keys are capacity, wer\.$"),
        ("~serach.seed", r"^~serach\.seed: no such key \(did you mean search\?\)"),
        ("~search.sed", r"^~search\.sed: no such key \(did you mean seed\?\)\. Under search the keys are algorithm"),
        ("~search.seed.x", r"^~search\.seed\.x: no such key\. Under search\.seed there are no keys"),
        ("~parameters.beem", r"no such key \(did you mean beam\?\)"),
        ("~parameters.beam.target", r"^~parameters\.beam\.target: has no default\. Set another value, or remove all of ~parameters\.beam\.$"),
        ("~services.whisper.env.A", r"no such key\. Under services\.whisper\.env there are no keys"),
        ("~search.seed=1", r"~search\.seed=1: not an override\. Use key=value, or ~key"),
        ("~", "not an override"),
    ],
)
def test_a_key_that_is_not_there_cannot_be_removed(space: str, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(space, [override])
    assert "\n" not in str(caught.value)


def test_what_is_read_before_the_rest_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("device: cuda\nray: {address: auto}\n")
    assert device_setting(str(path), ["~device"]) == "auto"
    assert raw_setting(str(path), ["~ray.address"], "ray.address") is None
    assert raw_setting(str(path), ["ray={address: there}"], "ray.address") == "there"


def test_joint_rules_are_asked_of_a_file_and_the_command_line_together(tmp_path: Path) -> None:
    path = tmp_path / "promote.yaml"
    path.write_text("confirm: {min_rounds: 20}\n")
    assert load_settings(path, ("confirm",), ["confirm.max_rounds=30"]).confirm.min_rounds == 20
    with pytest.raises(UserError, match=r"^confirm\.max_rounds=12: less than confirm\.min_rounds=20"):
        load_settings(path, ("confirm",), [])


@pytest.mark.parametrize(
    ("argument", "changes"),
    [("~search.seed", True), ("a=~/b", True), ("~/space.yaml", False), ("~user/space.yaml", False), ("my_space", False), ("space.yaml", False)],
)
def test_an_override_is_told_from_a_path(argument: str, changes: bool) -> None:
    assert is_override(argument) is changes


def test_the_last_text_given_counts_until_it_is_removed() -> None:
    assert last_given(["run.artifacts_dir=a", "run.artifacts_dir=b=c"], "run.artifacts_dir", "artifacts") == "b=c"
    assert last_given(["run.artifacts_dir=a", "~run.artifacts_dir"], "run.artifacts_dir", "artifacts") == "artifacts"


def test_a_configuration_is_not_changed_by_overrides_made_on_it() -> None:
    config = ExperimentConfig()
    changed = apply_overrides(config, ["~confirm.tolerances.wer"])
    assert "wer" in config.confirm.tolerances
    assert "wer" not in changed.confirm.tolerances
