"""`tune-gpu plan`: a space against a card, without a card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models import LLAMA_8B_CONFIG
from tune_gpu.cli.plan import plan
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, ParameterSpec, Services
from tune_gpu.evaluation.memory_check.cards import card_memory
from tune_gpu.evaluation.memory_check.space_columns import active_columns, is_grid, space_columns
from tune_gpu.evaluation.memory_check.space_plan import Preflight, params_of
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.deployment import resolve
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict
from tune_gpu.services.vllm.info import EngineInfo
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.engine_memory import find_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B_CONFIG))
    return folder


def space_file(tmp_path: Path, model: Path, **parameters: Any) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({
        "name": "llama_space", "parameters": parameters or {"share": {"target": "vllm.gpu_memory_utilization", "values": [0.5, 0.7, 0.9]}},
        "services": {"vllm": {"model": str(model), "max_model_len": 8192}, "whisper": {"model": "base"}},
    }))
    return str(path)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(plan, arguments)


def test_a_table_for_a_card_by_name(tmp_path: Path, model: Path) -> None:
    done = ask(space_file(tmp_path, model), "--gpu", "RTX 3090", "--vllm-version", "0.32.0")
    assert done.exit_code == 0, done.output
    assert "llama_space on RTX 3090 (cuda): 24146 MiB, 0 MiB used by other processes" in done.output
    assert "3 candidates:" in done.output
    assert "cannot hold" in done.output


def test_json_for_programs(tmp_path: Path, model: Path) -> None:
    done = ask(space_file(tmp_path, model), "--gpu", "rtx 3090", "--used-mib", "500", "--json", "--vllm-version", "0.10.0", "services.vllm.enforce_eager=true")
    document = json.loads(done.output)
    assert document["device"] == {"name": "RTX 3090", "kind": "cuda", "total_mib": 24146.0, "used_mib": 500.0}
    assert [(entry["params"], entry["verdict"]) for entry in document["candidates"]] == [
        ({"share": 0.5}, "infeasible"), ({"share": 0.7}, "infeasible"), ({"share": 0.9}, "fits"),
    ]
    best = document["candidates"][-1]
    assert set(best["parts_mib"]) == {"weights", "activation", "cuda_graphs", "non_torch", "kv", "whisper", "neighbours"}
    assert best["parts_mib"]["neighbours"] == 500
    assert best["kv_cache_tokens"]["low"] < best["kv_cache_tokens"]["value"] < best["kv_cache_tokens"]["high"]
    assert document["summary"] == {"fits": 1, "uncertain": 0, "infeasible": 2, "not_modelled": 0, "candidates": 3}


@pytest.mark.parametrize("name", ["4090", "rtx3090", "NVIDIA GeForce RTX 3090 Ti", "RTX 4090 24GB", "nvidia l4"])
def test_two_engines_are_planned_together_for_a_card_of_24_gb_by_name(name: str) -> None:
    document = json.loads(ask("two_llms", "--gpu", name, "--json", "--vllm-version", "0.32.0").output)
    assert 22_000 < document["device"]["total_mib"] < 25_000
    assert document["summary"]["candidates"] == len(document["candidates"]) == 24
    for candidate in document["candidates"]:
        assert candidate["verdict"] in ("fits", "uncertain", "infeasible")
        other = {"chat": "draft", "draft": "chat"}[candidate["service"]]
        assert candidate["parts_mib"][other] > 0, "what the other engine takes is part of the verdict"
    assert document["summary"]["fits"] >= 8


def test_shares_that_each_fit_alone_are_refused_together() -> None:
    """Halves of a card are no halves: each process holds memory outside of its share, too."""
    knobs = ["parameters.chat_share.values=[0.5,0.7]", "parameters.draft_share.values=[0.25,0.5]", "baseline={}", "~parameters.chat_sequences"]
    candidates = json.loads(ask("two_llms", "--gpu", "RTX 4090", "--json", "--vllm-version", "0.32.0", *knobs).output)["candidates"]
    verdicts = {(each["params"]["chat_share"], each["params"]["draft_share"]): (each["verdict"], each["reason"]) for each in candidates}
    assert {shares: verdict for shares, (verdict, _) in verdicts.items()} == {(0.5, 0.25): "fits", (0.7, 0.25): "fits", (0.5, 0.5): "infeasible", (0.7, 0.5): "infeasible"}
    assert "chat" in verdicts[0.7, 0.5][1]
    assert "draft" in verdicts[0.7, 0.5][1]


def test_the_table_of_two_engines_names_the_tightest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    shown = ask("two_llms", "--gpu", "RTX 4090", "--vllm-version", "0.32.0").output
    assert "tightest" in shown
    assert "other memory in draft's share, MiB" in shown
    assert "tightest" not in ask("--gpu", "RTX 4090", "--vllm-version", "0.32.0").output


def test_nothing_feasible_is_exit_code_1(tmp_path: Path, model: Path) -> None:
    assert ask(space_file(tmp_path, model), "--gpu", "T4").exit_code == 1
    assert ask(space_file(tmp_path, model), "--total-mib", "80000").exit_code == 0
    assert ask(space_file(tmp_path, model), "--total-mib", "80000", "--used-mib", "79000").exit_code == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (("--gpu", "RTX 3061"), "--gpu RTX 3061: no such card in the table (did you mean RTX 3060, "),
    (("--gpu", "T4", "services.vllm.modle=x"), "services.vllm.modle: no such key (did you mean model?)"),
    (("--gpu", "T4", "services.vllm.model=/no/such/folder"), "no config.json there"),
    (("--gpu", "T4", "services.vllm.model=someone/unheard-of"), "vllm.model=someone/unheard-of: its config.json is not on this machine"),
    (("--total-mib", "-5"), "total_mib=-5: out of range. Set a number above 0"),
    (("--gpu", "T4", "services.vllm.max_model_len=999999"), "vllm.max_model_len=999999: out of range. Set a number above 0 and at most 131072"),
    (("--gpu", "T4", "services.vllm.quantization=zip"), "vllm.quantization=zip: not a known"),
    (("--gpu", "T4", "parameters.share.values=[0.5,1.5]"), "vllm.gpu_memory_utilization=1.5: out of range. Set a number above 0 and at most 1"),
    (("--gpu", "T4", "parameters.share.values=[0.5,abc]"), "vllm.gpu_memory_utilization=abc: not a number. Set a number above 0 and at most 1"),
    (("--gpu", "T4", "services.vllm.block_size=0"), "vllm.block_size=0: out of range. Set a number above 0"),
    (("--gpu", "T4", "services.whisper.model=huge"), "whisper.model=huge: no such size"),
    (("--gpu", "T4", "--vllm-version", "abc"), "--vllm-version abc: not a version. Write it as in 0.32.0"),
    (("--gpu", "T4", "services.vllm.gpu_memory_utilization=0"), "services.vllm.gpu_memory_utilization=0: out of range. Set a number above 0 and at most 1"),
    (("--gpu", "T4", "services.vllm.max_model_len=1000000"), "vllm.max_model_len=1000000: out of range"),
    (("--gpu", "T4", "parameters.share.values=[0]"), "vllm.gpu_memory_utilization=0: out of range. Set a number above 0"),
])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, model: Path, arguments: tuple[str, ...], message: str) -> None:
    done = ask(space_file(tmp_path, model), *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_no_such_space() -> None:
    done = ask("no_such_space", "--gpu", "T4")
    assert done.exit_code == 2
    assert "no_such_space: no such space" in done.output


def test_a_large_space_is_drawn_as_a_map(tmp_path: Path, model: Path) -> None:
    path = space_file(
        tmp_path, model, share={"target": "vllm.gpu_memory_utilization", "low": 0.5, "high": 0.95, "step": 0.05},
        sequences={"target": "vllm.max_num_seqs", "values": [16, 64, 256]}, ears={"target": "whisper.model", "values": ["tiny", "large-v3"]},
        eager={"target": "vllm.enforce_eager", "values": [True, False], "kind": "categorical"},
    )
    done = ask(path, "--gpu", "RTX 3090")
    assert done.exit_code == 0, done.output
    assert "120 candidates" in done.output
    assert "may be launched" in done.output
    assert "none" in done.output
    assert "KV tokens from" in done.output
    assert "infeasible, for example eager=True, ears=tiny, sequences=16, share=0.5: vLLM's share of" in done.output
    assert len(done.output.splitlines()) < 40


def test_what_each_part_takes_stands_below_the_table(tmp_path: Path, model: Path) -> None:
    done = ask(space_file(tmp_path, model), "--gpu", "RTX 3090", "services.vllm.enforce_eager=true")
    assert "other memory in vLLM's share, MiB: 15" in done.output
    assert "non torch" in done.output
    assert "CUDA graphs" not in done.output  # none are captured
    assert "beside it, MiB: whisper 7" in done.output


def test_too_large_for_one_card_says_how_many_would_do(tmp_path: Path, model: Path) -> None:
    done = ask(space_file(tmp_path, model), "--gpu", "RTX 4090", "services.vllm.model=meta-llama/Llama-3.1-70B-Instruct", "--json")
    assert done.exit_code == 1
    assert "no share of this device can (tensor_parallel_size 8 times as large would divide it)" in json.loads(done.output)["candidates"][0]["reason"]
    divided = ask(space_file(tmp_path, model), "--gpu", "RTX 4090", "services.vllm.model=meta-llama/Llama-3.1-70B-Instruct", "services.vllm.tensor_parallel_size=8")
    assert divided.exit_code == 0, divided.output


def test_what_is_not_modelled_is_said_by_name_and_may_be_launched(tmp_path: Path, model: Path) -> None:
    done = ask(space_file(tmp_path, model), "--gpu", "H100", "services.vllm.model=Qwen/Qwen3-Next-80B-A3B-Instruct", "--json")
    assert done.exit_code == 0
    assert {entry["verdict"] for entry in json.loads(done.output)["candidates"]} == {"not_modelled"}


def test_the_cards_that_are_known_can_be_listed() -> None:
    done = ask("--cards")
    assert done.exit_code == 0
    assert "RTX 3060" in done.output
    assert "11909" in done.output


def test_the_default_space_on_this_machine_s_cpu() -> None:
    done = ask("device=cpu", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["device"]["kind"] == "cpu"
    assert document["summary"]["candidates"] >= 15
    assert {entry["verdict"] for entry in document["candidates"]} <= {"fits", "uncertain"}


def test_columns_of_a_space_with_conditions() -> None:
    space = SearchSpace.from_specs({
        "eager": ParameterSpec("vllm.enforce_eager", values=[True, False], kind="categorical"),
        "sequences": ParameterSpec("vllm.max_num_seqs", values=[8, 64], when={"eager": [False]}),
    })
    columns = space_columns(space)
    assert sorted(zip(columns["eager"], columns["sequences"], strict=True), key=str) == [(False, 64), (False, 8), (True, None)]
    plain = SearchSpace.from_specs({"share": ParameterSpec("vllm.gpu_memory_utilization", low=0.5, high=0.9)})
    assert len(space_columns(plain)["share"]) == 11


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_columns_are_the_configurations_that_the_space_enumerates(data: st.DataObject) -> None:
    """Whatever stands under whatever condition: each once, and no other."""
    specs: dict[str, ParameterSpec] = {}
    for number in range(data.draw(st.integers(1, 5))):
        values: list[Any] = data.draw(st.sampled_from([[1, 2], ["a", "b", "c"], [0.5], [True, False]]))
        parents = data.draw(st.sets(st.sampled_from(sorted(specs)), max_size=2)) if specs else set()
        when = {parent: data.draw(st.lists(st.sampled_from(specs[parent].values or []), min_size=1, unique_by=repr)) for parent in parents}
        specs[f"p{number}"] = ParameterSpec(f"vllm.extra_args.p{number}", values=values, kind="categorical", when=when)
    space = SearchSpace.from_specs(specs)
    columns = space_columns(space)
    count = len(next(iter(columns.values())))
    assert sorted(map(repr, (params_of(columns, index) for index in range(count)))) == sorted(map(repr, space.enumerate()))


def test_a_condition_that_does_not_hold_leaves_the_service_s_own_setting(tmp_path: Path, model: Path) -> None:
    config = ExperimentConfig()
    config.services.vllm.model, config.services.vllm.max_model_len, config.services.vllm.max_num_seqs = str(model), 8192, 32
    config.parameters = {
        "share": ParameterSpec("vllm.gpu_memory_utilization", values=[0.9]),
        "eager": ParameterSpec("vllm.enforce_eager", values=[True, False], kind="categorical"),
        "sequences": ParameterSpec("vllm.max_num_seqs", values=[8, 64], when={"eager": [False]}),
    }
    preflight = Preflight(config, card_memory("RTX 3090"))
    params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    for index in range(len(found)):
        candidate = {name: values[index] for name, values in params.items() if values[index] is not None}
        alone = preflight.predict(resolve(config, candidate, "cuda").services)
        assert found.verdict_of(index) is alone.verdict
        assert alone.kv_cache_tokens is not None
        assert found.kv_cache_tokens[index] == pytest.approx(alone.kv_cache_tokens.value, abs=1)


def test_of_a_long_range_and_of_too_many_combinations_a_grid_is_planned() -> None:
    specs = {
        "a": ParameterSpec(target="vllm.max_num_seqs", low=1, high=10**10, integer=True),
        "b": ParameterSpec(target="whisper.beam_size", values=[1, 5], when={"a": [777]}),
        "c": ParameterSpec(target="vllm.max_model_len", values=list(range(1, 2001))),
        "d": ParameterSpec(target="vllm.max_num_batched_tokens", values=list(range(1, 2001))),
    }
    space = SearchSpace.from_specs(specs)
    columns = space_columns(space)
    assert is_grid(space)
    assert {1, 777, 10**10} <= set(columns["a"].tolist())
    assert set(columns["b"][columns["a"] == 777]) == {1, 5}
    assert {1, 2000} <= set(columns["c"].tolist()) < set(range(1, 2001))
    assert 10_000 < len(columns["a"]) <= 100_000
    many = {f"p{number}": ParameterSpec(target=f"vllm.env.P{number}", values=["0", "1"]) for number in range(30)}
    assert 10_000 < len(space_columns(SearchSpace.from_specs(many))["p0"]) <= 100_000
    assert not is_grid(SearchSpace.from_specs({"c": specs["c"]}))


def test_two_exclusive_knobs_of_one_setting_are_one_column() -> None:
    specs = {
        "eager": ParameterSpec(target="vllm.enforce_eager", values=[True, False]),
        "few": ParameterSpec(target="vllm.max_num_seqs", values=[8], when={"eager": [True]}),
        "many": ParameterSpec(target="vllm.max_num_seqs", values=[16, 32], when={"eager": [False]}),
    }
    space = SearchSpace.from_specs(specs)
    columns = active_columns(space, space_columns(space), Services())
    assert columns["vllm.max_num_seqs"].tolist() == [8, 16, 32]


def test_what_a_start_taught_is_used_by_the_next_plan(tmp_path: Path, model: Path) -> None:
    config = ExperimentConfig()
    config.services.vllm.model, config.services.vllm.max_model_len = str(model), 8192
    config.parameters = {"share": ParameterSpec("vllm.gpu_memory_utilization", values=[0.65, 0.75, 0.8])}
    preflight = Preflight(config, card_memory("RTX 3090"), {"vllm": CalibrationStore()}, {"vllm": "0.32.0"})
    assert preflight.predict(resolve(config, {"share": 0.75}, "cuda").services).verdict is MemoryVerdict.UNCERTAIN
    flags = {"max_model_len": 8192, "max_num_seqs": None, "max_num_batched_tokens": None, "enforce_eager": False, "enable_chunked_prefill": None}
    CalibrationStore().learn(config.services.vllm, preflight.device.name, Calibration(15349.0, 200.0, None, "0.32.0", flags), preflight.start)
    prediction = Preflight(config, card_memory("RTX 3090"), {"vllm": CalibrationStore()}, {"vllm": "0.32.0"}).predict(resolve(config, {"share": 0.75}, "cuda").services)
    assert prediction.calibrated
    assert prediction.verdict is MemoryVerdict.FITS


def test_models_by_folder_name_and_table(model: Path) -> None:
    assert find_model(str(model)).layers == 32
    assert find_model("demo-llm").layers == 4
    known = find_model("Qwen/Qwen2.5-7B-Instruct-AWQ")
    assert known.layers == 28
    assert known.format is not None
    assert known.format.name == "awq"
    with pytest.raises(UserError, match="no known model has that name"):
        find_model("someone/unheard-of")


def test_warm_starts_on_the_cpu_are_not_told_by_cold_ones() -> None:
    config = ExperimentConfig()
    node = DeviceMemory("cpu", "cpu", 16000)
    assert Preflight(config, node).start == "warm"
    assert Preflight(config, card_memory("T4")).start == "cold"
    config.run.warm_engine = False
    assert Preflight(config, node).start == "cold"


def test_a_start_teaches_the_experiment_s_preflight() -> None:
    config = ExperimentConfig()
    config.services.vllm.max_model_len, config.services.vllm.enforce_eager, config.services.vllm.max_num_seqs = 2048, True, 8
    preflight = Preflight(config, DeviceMemory("cpu", "cpu", 10971348 / 1024), {"vllm": CalibrationStore()}, {"vllm": "0.32.0"})
    log = "Auto set (0.48/10.46) GiB for KV cache on node 0, with 1.26 GiB requested memory"
    config.services.vllm.gpu_memory_utilization = 0.12
    engine = resolve(config, {}, "cpu")["vllm"]
    info = EngineInfo(1.0, 251392, 1964, 128, None, "0.32.0")
    measured = preflight.learn_start(engine, log, info)
    assert measured is not None
    again = Preflight(config, preflight.device, {"vllm": CalibrationStore()}, {"vllm": "0.32.0"}).predict(resolve(config, {}, "cpu").services)
    assert again.calibrated
    assert again.kv_cache_tokens is not None
    assert again.kv_cache_tokens.value == 251392
    assert preflight.learn_start(engine, "no numbers", replace(info, kv_cache_blocks=None, block_size=None)) is None
