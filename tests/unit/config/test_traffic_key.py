"""`traffic` is another spelling of `workload`, wherever a setting is given."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import SPACES_FOLDER
from tune_gpu.config.loader import DEFAULT_SPACE, as_yaml, load_config
from tune_gpu.config.traffic_key import Spelling
from tune_gpu.experiment.checks import check_config


def space(tmp_path: Path, **change: object) -> str:
    path = tmp_path / "space.yaml"
    content = {"name": "s", "parameters": {"share": {"target": "vllm.gpu_memory_utilization", "values": [0.1, 0.2]}}, "objective": {"weights": {"wer": 1.0}}, **change}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_a_space_may_say_traffic(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, traffic={"kind": "requests", "window_s": 7.0}, devices={"cpu": {"traffic": {"windows": 5}}}), [], "cpu")
    assert (config.workload.window_s, config.workload.windows) == (7.0, 5)


@pytest.mark.parametrize("spelling", ["traffic", "workload"])
@pytest.mark.parametrize("override", ["window_s=8", "turn=[whisper]", "background={vllm: 2}", "audio.noise_snr_db=[5]"])
def test_an_override_may_say_traffic(spelling: str, override: str) -> None:
    assert as_yaml(load_config(DEFAULT_SPACE, [f"{spelling}.{override}"], "cpu")) == as_yaml(load_config(DEFAULT_SPACE, [f"workload.{override}"], "cpu"))


def test_all_of_the_traffic_may_be_given_at_once() -> None:
    assert load_config(DEFAULT_SPACE, ["traffic={windows: 9}"], "cpu").workload.windows == 9


def test_a_setting_of_the_traffic_can_be_removed() -> None:
    assert load_config(DEFAULT_SPACE, ["~traffic.windows"], "cpu").workload.windows == 1


def test_the_default_spaces_configuration_keeps_the_old_key() -> None:
    assert "\nworkload:\n" in as_yaml(load_config(DEFAULT_SPACE, [], "cpu"))
    assert "traffic" not in (SPACES_FOLDER / f"{DEFAULT_SPACE}.yaml").read_text(encoding="utf-8")


def test_a_key_that_only_begins_alike_is_unknown() -> None:
    with pytest.raises(UserError, match=r"traffics: no such key"):
        load_config(DEFAULT_SPACE, ["traffics.windows=9"], "cpu")


def test_both_spellings_in_a_space_are_one_clear_line(tmp_path: Path) -> None:
    both = {"traffic": {"windows": 2}, "workload": {"windows": 2}}
    with pytest.raises(UserError, match=r"^traffic: another spelling of workload, which is given as well\. Keep one of them\.$"):
        load_config(space(tmp_path, **both), [], "cpu")
    with pytest.raises(UserError, match=r"^devices\.cuda\.traffic: another spelling of devices\.cuda\.workload"):
        load_config(space(tmp_path, devices={"cuda": both}), [], "cpu")


def test_both_spellings_of_one_override_are_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"^traffic\.windows=3: workload\.windows is another spelling of the same key, and is given as well"):
        load_config(DEFAULT_SPACE, ["workload.windows=2", "traffic.windows=3"], "cpu")
    assert load_config(DEFAULT_SPACE, ["workload.windows=2", "traffic.window_s=3"], "cpu").workload.window_s == 3.0


NAMED = {"services": {"llm": {"kind": "vllm", "model": "demo-llm"}}, "parameters": {"share": {"target": "llm.gpu_memory_utilization", "values": [0.1, 0.2]}}, "objective": {"weights": {"llm.latency": 1.0}}}


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ({"traffic": {"window_s": -1.0}}, [], r"^traffic\.window_s=-1"),
        ({"workload": {"window_s": -1.0}}, [], r"^workload\.window_s=-1"),
        ({"traffic": {"widnow_s": 1.0}}, [], r"^traffic\.widnow_s: no such key"),
        ({"traffic": [1]}, [], r"^traffic=\[1\]: not a mapping"),
        ({}, ["traffic.window_s=-1"], r"^traffic\.window_s=-1"),
        ({}, ["workload.window_s=-1"], r"^workload\.window_s=-1"),
        ({"traffic": {"windows": 2}}, ["workload.window_s=-1"], r"^workload\.window_s=-1"),
        ({"workload": {"windows": 2}}, ["traffic={window_s: -1}"], r"^traffic\.window_s=-1"),
        ({"traffic": {"turn_rate_per_s": 1e-6}}, ["workload.window_s=5"], r"^traffic\.turn_rate_per_s=1e-06: .* \(workload\.window_s\)"),
        ({"devices": {"cpu": {"traffic": {"widnow_s": 1.0}}}}, [], r"^devices\.cpu\.traffic\.widnow_s: no such key"),
    ],
)  # fmt: skip
def test_an_error_spells_the_section_as_the_user_does(tmp_path: Path, content: dict[str, object], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(space(tmp_path, **content), overrides, "cpu")


@pytest.mark.parametrize(("layer", "section"), [({}, "traffic"), ({"workload": {"windows": 2}}, "workload")])
def test_a_check_of_the_whole_space_spells_it_so_too(tmp_path: Path, layer: dict[str, object], section: str) -> None:
    """A space that sets nothing of it is spelled as its services are: named ones have traffic."""
    config = load_config(space(tmp_path, **NAMED, **layer), ["services.llm.max_model_len=100"], "cpu")
    config.workload.max_tokens = 100
    with pytest.raises(UserError, match=rf"^{section}\.max_tokens=100: an answer of this length"):
        check_config(config)
    assert config.spelling.text("raise workload.window_s in my_workload.yaml or workload.yaml: x/workload=1") == f"raise {section}.window_s in my_workload.yaml or workload.yaml: x/workload=1"


def test_how_the_section_is_spelled_is_no_setting_of_the_run(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, **NAMED, traffic={"windows": 2}), [], "cpu")
    assert "spelling" not in as_yaml(config)
    assert "spelling" not in asdict(config)
    assert load_config(DEFAULT_SPACE, [], "cpu").spelling == Spelling(), "of another configuration"
