"""Services are data: a space lists them by names of its own, and `kind` says what each is."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import ARTIFACTS, WHOLE
from tune_gpu.artifacts.records.base import Record
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.loader import as_yaml, config_of, load_config
from tune_gpu.config.service_settings import PAIR
from tune_gpu.config.space_catalogue import protocols_of
from tune_gpu.config.space_services import TAKEN, kinds_of, kinds_of_layers
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.base import start_order
from tune_gpu.services.cards import divisions, most_cards
from tune_gpu.services.deployment import resolve, start_key
from tune_gpu.services.registry import services_of

THREE: dict[str, Any] = {
    "parameters": {"share": {"target": "llm.gpu_memory_utilization", "values": [0.1, 0.2]}, "size": {"target": "stt.model", "values": ["tiny.en", "base"]}},
    "baseline": {"share": 0.1, "size": "base"},
    "services": {
        "llm": {"kind": "vllm", "model": "demo-llm", "max_model_len": "1k"},
        "stt": {"kind": "faster-whisper", "model": "base"},
        "embed": {"kind": "vllm", "model": "demo-llm", "runner": "pooling", "gpu_memory_utilization": 0.05},
    },
}


def space(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def test_a_space_without_kinds_has_the_default_pair() -> None:
    for name in ("spica_gpu_allocation", "spica_gpu_allocation_fine"):
        config = load_config(name, [], "cpu")
        assert dict(kinds_of(config.services)) == PAIR
        assert "kind" not in asdict(config.services)["vllm"], "the artifacts of version 1 keep their keys"


def test_a_space_with_kinds_has_what_it_lists_and_nothing_else(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, THREE), [], "cpu")
    assert kinds_of(config.services) == (("llm", "vllm"), ("stt", "faster-whisper"), ("embed", "vllm"))
    assert config.services["llm"].max_model_len == 1000, "values are read as their kind writes them"
    assert dict(protocols_of(config.services)) == {"llm": Protocol.COMPLETION, "stt": Protocol.TRANSCRIPTION, "embed": Protocol.EMBEDDING}
    assert check_space(config).size == 4


def test_a_candidate_changes_the_settings_of_the_service_that_it_targets(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, THREE), [], "cpu")
    before = asdict(config)
    services = settings_with(config, {"share": 0.2, "size": "tiny.en"})
    assert (services["llm"].gpu_memory_utilization, services["stt"].model, services["embed"].gpu_memory_utilization) == (0.2, "tiny.en", 0.05)
    assert asdict(config) == before


def test_a_configuration_survives_its_file_and_the_way_to_an_actor(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, THREE), ["services.llm.extra_args.seed=1"], "cpu")
    again = load_config(space(tmp_path / "..", yaml.safe_load(as_yaml(config))), [])
    assert asdict(again) == asdict(config) == asdict(config_of(asdict(config)))
    for service in resolve(config, config.baseline, "cpu").services:
        assert pickle.loads(pickle.dumps(service.settings)) == service.settings


def test_its_classes_are_pickled_by_name_and_stay_what_they_are(tmp_path: Path) -> None:
    """Ray's pickler changes a class that it sends by value when it comes back in the same process."""
    config = load_config(space(tmp_path, THREE), [], "cpu", trust=True)
    again = cloudpickle.loads(cloudpickle.dumps(config))
    assert type(again) is type(config)
    assert asdict(again) == asdict(config) == asdict(config_of(asdict(config)))
    in_another = "import pickle, sys; config = pickle.load(sys.stdin.buffer); print([name for name, _ in config.services.items()])"
    done = subprocess.run([sys.executable, "-c", in_another], input=cloudpickle.dumps(config), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['llm', 'stt', 'embed']"


def test_what_grows_starts_before_what_reserves(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, THREE), [], "cpu")
    assert [service.name for service in start_order(services_of(config.services))] == ["stt", "llm", "embed"]


def test_a_service_keeps_its_key_while_its_own_settings_stay(tmp_path: Path) -> None:
    config = load_config(space(tmp_path, THREE), [], "cpu")
    one, other = (resolve(config, {"share": share, "size": "base"}, "cpu") for share in (0.1, 0.2))
    assert one["embed"].reuse_key == other["embed"].reuse_key is not None
    assert one["llm"].reuse_key != other["llm"].reuse_key
    assert one["stt"].reuse_key is None, "it starts anew for every candidate"
    assert start_key(config, {"share": 0.1, "size": "base"}) == start_key(config, {"share": 0.1, "size": "tiny.en"})


def test_the_engine_of_any_name_decides_the_number_of_cards(tmp_path: Path) -> None:
    knob = {"tp": {"target": "embed.tensor_parallel_size", "values": [1, 2]}, "pp": {"target": "llm.extra_args.pipeline-parallel-size", "values": [1, 3]}}
    config = load_config(space(tmp_path, THREE | {"parameters": THREE["parameters"] | knob}), [], "cuda")
    assert most_cards(config) == 3
    assert len(divisions(config)) == 4


def test_the_command_line_adds_and_removes_services(tmp_path: Path) -> None:
    path = space(tmp_path, THREE)
    added = load_config(path, ["services.second={kind: faster-whisper, model: tiny.en}"], "cpu")
    assert [name for name, _ in added.services.items()] == ["llm", "stt", "embed", "second"]
    removed = load_config(path, ["~services.embed"], "cpu")
    assert [name for name, _ in removed.services.items()] == ["llm", "stt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"services": {"llm": {"kind": "vlm"}}}, r"services\.llm\.kind=vlm: no such kind of service \(did you mean vllm\?\)\. Use one of .*faster-whisper"),
        ({"services": {"llm": {"kind": "vllm"}, "stt": {"model": "base"}}}, r"services\.stt: has no kind, but another service has one\. Set services\.stt\.kind to one of"),
        ({"services": {"my-llm": {"kind": "vllm"}}}, r"services\.my-llm: not a name for a service"),
        ({"services": {"class": {"kind": "vllm"}}}, r"services\.class: not a name for a service"),
        *(({"services": {name: {"kind": "vllm"}}}, rf"services\.{name}: the name has another meaning in results") for name in ("turn", "wer", "fitness_terms", "params")),
        ({"services": {"llm": {"kind": "vllm", "modle": "x"}}}, r"services\.llm\.modle: no such key \(did you mean model\?\)"),
        ({"services": {"llm": {"kind": "vllm", "block_size": 0}}}, r"services\.llm\.block_size=0: out of range"),
        ({"services": {"llm": None}}, r"services\.llm: no such key"),
        ({"parameters": {"a": {"target": "lmm.model", "values": ["x"]}}}, r"parameters\.a\.target=lmm\.model: no such service \(did you mean llm\?\)"),
        ({"parameters": {"a": {"target": "llm.beam_size", "values": [1]}}}, r"parameters\.a\.target=llm\.beam_size: no such setting"),
        ({"parameters": {"a": {"target": "stt.extra_args.x", "values": [1]}}}, r"parameters\.a\.target=stt\.extra_args\.x: no such setting"),
        ({"devices": {"cpu": {"services": {"llm": {"modle": "x"}}}}}, r"devices\.cpu\.services\.llm\.modle: no such key"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = THREE | change
    if "services" in change:
        content = {**content, "parameters": {}, "baseline": {}}
    with pytest.raises(UserError, match=message) as refused:
        check_space(load_config(space(tmp_path, content), [], "cpu", trust=True))
    assert "\n" not in str(refused.value)


def test_no_service_is_called_like_what_results_hold() -> None:
    (path,) = (ARTIFACTS / "spica_gpu_allocation" / WHOLE).glob("gen_0_candidates.jsonl")
    measured = {key for line in path.read_text().splitlines() for key in json.loads(line)["metrics"]}
    assert len(measured) > 10
    own = {each.name for each in fields(EvaluationRecord)} - {each.name for each in fields(Record)}
    assert measured | own <= TAKEN


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in TAKEN), st.sampled_from(["vllm", "faster-whisper"]), min_size=1, max_size=5))
def test_any_set_of_names_and_kinds_is_read_back(kinds: dict[str, str]) -> None:
    import keyword

    kinds = {name: kind for name, kind in kinds.items() if not keyword.iskeyword(name)}
    layer = {"services": {name: {"kind": kind} for name, kind in kinds.items()}}
    assert kinds_of_layers([layer]) == (tuple(kinds.items()) or tuple(PAIR.items()))
    if kinds:
        assert kinds_of(config_of(layer).services) == tuple(kinds.items())


def test_shares_that_are_more_than_the_device_are_refused(tmp_path: Path) -> None:
    content = THREE | {"services": {**THREE["services"], "embed": {**THREE["services"]["embed"], "gpu_memory_utilization": 0.95}}}
    with pytest.raises(UserError, match=r"services: llm 0\.1 \+ embed 0\.95 = 1\.05 of the device's memory, even with the smallest share of each"):
        check_config(load_config(space(tmp_path, content), ["objective.weights={capacity: 1}", "workload.turn=[llm]"], "cpu"))
