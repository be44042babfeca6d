"""Bad input: one clear line that names the key, what was given and what is allowed."""

from __future__ import annotations

import socket
import tracemalloc
from pathlib import Path

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.checks import check_config


def test_the_default_space_has_15_configurations_and_cores_on_the_cpu() -> None:
    from tune_gpu.search.space import SearchSpace
    from tune_gpu.services.deployment import start_key

    card = load_config("spica_gpu_allocation", [], "cuda")
    space = SearchSpace.from_specs(card.parameters)
    assert space.size == 15
    assert len({start_key(card, params) for params in space.enumerate()}) == 5
    cpu = load_config("spica_gpu_allocation", [], "cpu")
    assert {"vllm_cores", "whisper_cores"} <= cpu.parameters.keys()


def test_overrides_reach_every_level() -> None:
    config = load_config("spica_gpu_allocation", ["search.seed=3", "services.vllm.extra_args.swap_space=1"], "cpu")
    assert config.search.seed == 3
    assert config.services.vllm.extra_args == {"swap_space": 1}


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config("spica_gpu_allocation", ["search.seed=3"], "cpu")
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert load_config(str(tmp_path / "config.yaml"), [], None) == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("serach.seed=1", r"serach: no such key \(did you mean search\?\)"),
        ("search.sed=1", r"search\.sed: no such key \(did you mean seed\?\)\. Use one of .*generations"),
        ("search.seed=abc", r"search\.seed: Value 'abc'"),
        ("nonsense", "key=value"),
        ("parameters.vllm_memory_util.valuse=[1]", r"valuse: no such key \(did you mean values\?\)"),
        ("baseline.vllm_memory_util=0.99", r"baseline\.vllm_memory_util=0\.99: not allowed\. Use 0\.1, 0\.15, 0\.2"),
        ("parameters.vllm_memory_util.values=[0.15,1.5]", r"gpu_memory_utilization=1\.5: out of range. Set a number above 0 and at most 1"),
        ("parameters.vllm_memory_util.values=[]", "is empty"),
        ("parameters.vllm_memory_util.target=vllm.speed", r"vllm\.speed: no such setting\. Use one of vllm\.model"),
        ("services.vllm.model=/no/such/model", r"vllm\.model=/no/such/model: no config\.json"),
        ("parameters.whisper_model_size.values=[base,tinny]", r"whisper\.model=tinny: no such size\. Set one of .*tiny"),
        ("parameters.vllm_cores.values=['0','4096']", r"no core 4096"),
        ("parameters.vllm_cores.values=['0','x']", r"vllm\.cpu_cores=x"),
        ("workload.window_s=0", r"workload\.window_s=0.*above 0"),
        ("workload.capacity_step_s=0.5 workload.session_pause_s=0.5", r"capacity_step_s=0\.5: shorter than a caller's longest pause .* Set 0 \(no ramp\) or a number above 0\.75"),
        ("workload.capacity_step_s=0", r"capacity_step_s=0: no capacity is measured, but objective\.weights\.capacity=0\.2 weighs it"),
        ("workload.audio.noise_snr_db=[.nan]", r"workload\.audio\.noise_snr_db=nan: not a finite number. Set a finite number, or null for the clean clip"),
        ("workload.audio.noise_snr_db=[1e9]", r"workload\.audio\.noise_snr_db=1000000000: out of range. Set a number from -100 to 100, or null"),
        ("workload.audio.noise_snr_db=[null,-5000]", r"workload\.audio\.noise_snr_db=-5000: out of range"),
        ("services.vllm.max_model_len=64 workload.max_tokens=64", r"workload\.max_tokens=64: .*max_model_len=64"),
        ("services.vllm.extra_args.gpu-memory-utilization=0.9", r"extra_args\.gpu-memory-utilization: .*vllm\.gpu_memory_utilization"),
        ("services.vllm.extra_args.port=1", r"services\.vllm\.extra_args\.port: every evaluation sets it itself"),
        ("services.vllm.extra_args.host=0.0.0.0", r"extra_args\.host: every evaluation"),
        ("services.vllm.extra_args.served_model_name=a", r"extra_args\.served_model_name: every evaluation"),
        ("workload.turn_rate_per_s=1e-6", r"turn_rate_per_s=1e-06: .* voice turns in a window are too few\. Have at least 0\.01"),
        ("search.racing=true workload.windows=1", r"search\.racing=true: workload\.windows=1 is too few"),
        ("run.port_range=[1,2,3]", r"run\.port_range=\[1, 2, 3\]"),
        ("run.artifacts_dir=/proc/x", r"run\.artifacts_dir=/proc/x: /proc cannot be written"),
        ("workload.audio.source=/nowhere", r"workload\.audio\.source=/nowhere: no such folder. Set samples"),
        ("objective.weights.charm=1", r"objective\.weights\.charm: no such term"),
        ("search.objectives.wre=min", r"search\.objectives\.wre: no such metric \(did you mean wer\?\)\. Use one of stt_latency_ms\.p50"),
        ("search.objectives.concurrent_capacity=max workload.capacity_step_s=0 objective.weights.capacity=0",
         r"search\.objectives\.concurrent_capacity: it is not measured with workload\.capacity_step_s=0"),
        ("ray.runtime_env.env_vars=3", r"^ray\.runtime_env\.env_vars=3: not a mapping. Set a mapping of variables to text"),
        ("ray.runtime_env.env_vars.CUDA_VISIBLE_DEVICES=0", r"^ray\.runtime_env\.env_vars\.CUDA_VISIBLE_DEVICES: Ray assigns the cards"),
        ("promote.vllm.url=ftp://x", r"^promote\.vllm\.url=ftp://x: not an address. Set http://HOST:PORT"),
        ("name=winners", r"^name=winners: not a name. Use up to 100 letters"),
        ("search.survivors=9", r"search\.survivors=9"),
        ("search.seed=-1", r"search\.seed=-1: out of range. Set a number of at least 0"),
        ("run.time_budget_s=-1", r"run\.time_budget_s=-1\.0: out of range. Set a number above 0"),
        ("run.time_budget_s=0", r"run\.time_budget_s=0\.0: out of range. Set a number above 0"),
        ("workload.window_s=inf", r"workload\.window_s=inf: not a finite number. Set a finite number"),
        ("objective.max_wer=nan", r"objective\.max_wer=nan: not a finite number. Set a finite number"),
        ("description=${oc.env:HOME}", r"\$\{oc\.env:HOME\}: nothing is evaluated"),
        ("description=${oc.${name}:HOME}", "nothing is evaluated"),
    ],
)
def test_what_is_wrong_is_named(override: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        check_config(load_config("spica_gpu_allocation", override.split(), "cpu"))
    assert "\n" not in str(caught.value)


def test_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"did you mean spica_gpu_allocation\?"):
        load_config("spica_gpu_alocation", [])
    with pytest.raises(UserError, match="no such file"):
        load_config("nowhere.yaml", [])


def test_a_port_range_with_nothing_free_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=r"no port of this range is free"):
            check_config(load_config("spica_gpu_allocation", [f"run.port_range=[{port},{port}]"], "cpu"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: a\nname: b\n", "line 2, column 1: found duplicate key name"),
        ("parameters:\n  a: {target: x\n  b: y\n", r"line 3, column 4: did not find expected ',' or '}'"),
        ("parameters: [share]\n", r"parameters=\['share'\]: a list instead of a mapping"),
        ("parameters: {share: }\n", "parameters.share: is empty. Set a mapping of target, values"),
        ("parameters: {model: {target: whisper.model, values: base}}\n", r"parameters\.model\.values=base: not a list\. Set a list such as \[base\]"),
        ("services: {vllm: 3}\n", r"services\.vllm=3: not a mapping\. Set a mapping of model"),
        ("devices: {cup: {name: a}}\n", r"devices\.cup: no such device \(did you mean cpu\?\)"),
        ("devices: {cuda: {worklod: {}}}\n", r"devices\.cuda\.worklod: no such key \(did you mean workload\?\)"),
    ],
)
def test_a_mistake_in_a_space_is_told_by_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(path), [], "cpu")  # what is wrong for cuda is told here too
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "name: {a: !!python/object/apply:os.system ['true']}"])
def test_what_is_not_a_space_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(UserError):
        load_config(str(path), [])


def _space(tmp_path: Path, parameters: str, rest: str = "") -> str:
    path = tmp_path / "space.yaml"
    path.write_text(f"objective: {{weights: {{wer: 1}}}}\nparameters:\n{parameters}\n{rest}\n")
    return str(path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("  a: {target: whisper.modle, values: [base]}", r"parameters\.a\.target=whisper\.modle: no such setting"),
        ("  a: {target: vllm.cpu_cores, values: [0, 1]}", r"vllm\.cpu_cores=0: not text. Set text, in quotes"),
        ("  a: {target: whisper.beam_size, values: [wide]}", r"whisper\.beam_size=wide: not a whole number"),
        ("  a: {target: whisper.beam_size, values: [5, 0]}", r"whisper\.beam_size=0: out of range. Set a number above 0"),
        ("  a: {target: whisper.compute_type, values: [int9]}", r"whisper\.compute_type=int9: not allowed. Set one of default"),
        ("  a: {target: whisper.model, values: [[base]]}", r"whisper\.model=\['base'\]: not text"),
        ("  a: {target: vllm.max_num_seqs, low: 1, high: 64}", r"max_num_seqs=1\.0: not a whole number. Set whole numbers, and `integer: true` for a range"),
        ("  a: {target: vllm.enforce_eager, values: [0, 1]}", r"vllm\.enforce_eager=0: a switch. Set true or false"),
        ("  a: {target: vllm.extra_args.max-num-seqs, values: [4, 8]}", r"extra_args\.max-num-seqs: .*vllm\.max_num_seqs"),
        ("  a: {target: vllm.extra_args, values: [a]}", r"vllm\.extra_args: it is a mapping\. Name one entry"),
        ("  a: {target: vllm.block_size, values: [16], low: 1, high: 9}", "and a range"),
        ("  a: {target: vllm.block_size, values: [16]}\n  b: {target: vllm.block_size, values: [32]}", r"parameters\.a has the same"),
        ("  a: {target: vllm.block_size, values: [16]}\n  b: {target: vllm.max_num_seqs, values: [3], when: {a: []}}", r"when\.a: is empty"),
    ],
)
def test_a_knob_that_reaches_nothing_or_cannot_be_turned_is_refused(tmp_path: Path, parameters: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(load_config(_space(tmp_path, parameters), []))


def test_two_knobs_may_share_a_setting_where_conditions_keep_them_apart(tmp_path: Path) -> None:
    parameters = (
        "  a: {target: vllm.enforce_eager, values: [true, false]}\n"
        "  b: {target: vllm.max_num_seqs, values: [8], when: {a: [true]}}\n"
        "  c: {target: vllm.max_num_seqs, values: [16], when: {a: [false]}}"
    )
    check_config(load_config(_space(tmp_path, parameters), []))


def test_a_long_range_is_checked_by_its_ends_and_a_variable_is_text(tmp_path: Path) -> None:
    parameters = (
        "  a: {target: vllm.max_num_seqs, low: 1, high: 10000000000, integer: true}\n"
        "  b: {target: vllm.env.OMP_NUM_THREADS, values: [1, 2]}"
    )
    tracemalloc.start()
    config = load_config(_space(tmp_path, parameters), [])
    check_config(config)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 100 * 2**20, "the range is not written out"
    assert settings_with(config, {"b": 2}).vllm.env == {"OMP_NUM_THREADS": "2"}
