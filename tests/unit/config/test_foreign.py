"""A space or a run that is not the user's own sets only what cannot run code; all that it could set otherwise is named and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_run import FAST, QUICK, RUN_ID, made_run
from tests.support.runs import ARTIFACTS, WHOLE
from tune_gpu.artifacts.finished_run import read_finished_run
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import SPACES_FOLDER, is_own, key_file, sealed
from tune_gpu.config.foreign import HARMLESS, PERMISSIONS, _key, _leaf_needs_trust, _leaves
from tune_gpu.config.foreign_services import setting_needs_trust, variable_needs_trust
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.session_settings import AuxiliarySettings, ProfileSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.faster_whisper import trust as of_whisper
from tune_gpu.services.vllm import trust as of_vllm
from tune_gpu.services.vllm.options import Role, options, problem_of, read_name
from tune_gpu.services.vllm.trust import flag_needs_trust

VARIABLES = {**of_vllm.VARIABLES, **of_whisper.VARIABLES}
KNOB = {"share": {"target": "vllm.gpu_memory_utilization", "values": [0.1, 0.2]}}
HARMFUL: dict[str, Any] = {
    "services.vllm.extra_args.middleware": ["evil.Middleware"],
    "services.vllm.extra_args.worker_cls": "evil.Worker",
    "services.vllm.extra_args.worker-extension-cls": "evil.Extension",
    "services.vllm.extra_args.tool_parser_plugin": "evil.py",
    "services.vllm.extra_args.reasoning_parser_plugin": "evil.py",
    "services.vllm.extra_args.logits_processors": ["evil.Processor"],
    "services.vllm.extra_args.trust_remote_code": True,
    "services.vllm.extra_args.model_impl": "terratorch",
    "services.vllm.extra_args.hf_overrides": {"architectures": ["Evil"]},
    "services.vllm.extra_args.kv_transfer_config": {"kv_connector": "Evil", "kv_connector_module_path": "evil"},
    "services.vllm.extra_args.chat_template": "/home/somebody/secret",
    "services.vllm.extra_args.otlp_traces_endpoint": "http://example.org",
    "services.vllm.extra_args.allowed_local_media_path": "/",
    "services.vllm.extra_args.lora_modules": ["a=/somewhere"],
    "services.vllm.extra_args.download_dir": "/somewhere",
    "services.vllm.extra_args.code_revision": "evil",
    "services.vllm.extra_args.tokenizer": "evil/tokenizer",
    "services.vllm.extra_args.speculative_config": {"method": "ngram", "model": "evil/draft"},
    "services.vllm.extra_args.compilation_config": {"backend": "evil.Backend"},
    "services.vllm.extra_args.additional_config": {"a": 1},
    "services.vllm.extra_args.profiler_config": {"torch_profiler_dir": "/somewhere"},
    "services.vllm.extra_args.attention_backend": "CUSTOM",
    "services.vllm.extra_args.kv_offloading_backend": "lmcache",
    "services.vllm.extra_args.of_a_newer_vllm": 1,
    "services.vllm.model": "s3://bucket/model",
    "services.vllm.load_format": "tensorizer",
    "services.vllm.quantization": "./evil",
    "services.vllm.env.LD_PRELOAD": "evil.so",
    "services.vllm.env.PATH": "/somewhere",
    "services.vllm.env.PYTHONSTARTUP": "evil.py",
    "services.vllm.env.VLLM_PLUGINS": "evil",
    "services.vllm.env.CUDA_INJECTION64_PATH": "evil.so",
    "services.vllm.env.PYTORCH_CUDA_ALLOC_CONF": "backend:evil.so",
    "services.vllm.env.VLLM_ATTENTION_BACKEND": "CUSTOM",
    "services.whisper.env.PYTHONPATH": "/somewhere",
    "ray.address": "192.0.2.1:6379",
    "ray.storage_path": "s3://bucket",
    "ray.runtime_env.py_executable": "evil",
    "ray.runtime_env.working_dir": "https://example.org/evil.zip",
    "ray.runtime_env.pip": ["evil"],
    "ray.runtime_env.conda": "evil",
    "ray.runtime_env.container": {"image": "evil"},
    "ray.runtime_env.env_vars.LD_PRELOAD": "evil.so",
    "run.artifacts_dir": "/somewhere",
    "run.mps": True,
    "parameters.share": {"target": "vllm.extra_args.worker_cls", "values": ["evil.Worker", "evil.Other"]},
}  # fmt: skip
"""Each by itself; a dot in a name is a level of the YAML."""


def nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], dict) and isinstance(other[key], dict)}
    return {**one, **other, **both}


def space(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(merged({"name": "foreign", "device": "cpu", "parameters": KNOB, "baseline": {"share": 0.1}}, content)))
    return str(path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(("key", "value"), HARMFUL.items())
def test_what_could_run_code_or_reach_files_needs_trust(key: str, value: Any, tmp_path: Path) -> None:
    path = space(tmp_path, nested(key, value))
    with pytest.raises(UserError) as caught:
        load_config(path, [])
    assert str(caught.value).startswith(key)
    assert "give --trust" in str(caught.value)
    load_config(path, [], trust=True)


@pytest.mark.parametrize(("key", "value"), HARMFUL.items())
def test_an_overlay_needs_trust_as_the_space_does(key: str, value: Any, tmp_path: Path) -> None:
    path = space(tmp_path, {"devices": {"cpu": nested(key, value)}})
    with pytest.raises(UserError, match="give --trust"):
        load_config(path, [], "cpu")
    load_config(path, [], "cuda")


@pytest.mark.parametrize(("key", "value"), [pair for pair in HARMFUL.items() if pair[0] != "parameters.share"])
def test_what_the_user_types_needs_no_trust(key: str, value: Any, tmp_path: Path) -> None:
    load_config(space(tmp_path, {}), [f"{key}={json.dumps(value)}"])


def test_a_part_that_the_user_types_does_not_vouch_for_the_rest(tmp_path: Path) -> None:
    path = space(tmp_path, {"services": {"vllm": {"extra_args": {"hf_overrides": {"a": "evil"}}}}})
    with pytest.raises(UserError, match=r"services\.vllm\.extra_args\.hf_overrides"):
        load_config(path, ["services.vllm.extra_args.hf_overrides.b=1"])
    path = space(tmp_path, {"parameters": {"a": {"target": "vllm.extra_args.worker_cls", "values": [1, 2]}}})
    with pytest.raises(UserError, match=r"parameters\.a: vllm\.extra_args\.worker_cls"):
        load_config(path, ["parameters.a.values=[3, 4]"])
    path = space(tmp_path, {"description": "evil.so"})
    with pytest.raises(UserError, match="LD_PRELOAD"):
        load_config(path, ["services.vllm.env.LD_PRELOAD=${description}"])


def test_an_interpolation_is_judged_by_what_it_becomes(tmp_path: Path) -> None:
    path = space(tmp_path, {"description": "./evil", "services": {"vllm": {"extra_args": {"tool_call_parser": "${description}"}}}})
    with pytest.raises(UserError, match=r"tool_call_parser: \"\./evil\""):
        load_config(path, [])


def test_a_space_that_tunes_needs_no_trust(tmp_path: Path) -> None:
    tuning = {
        "services": {
            "vllm": {"model": "org/model", "dtype": "bfloat16", "kv_cache_dtype": "fp8_e4m3", "quantization": "compressed-tensors", "load_format": "dummy",
                     "cpu_cores": "0-1", "max_model_len": "32k",
                     "env": {"VLLM_ATTENTION_BACKEND": "FLASHINFER", "OMP_NUM_THREADS": 2, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,max_split_size_mb:64"},
                     "extra_args": {"seed": 3, "scheduling_policy": "priority", "enable-expert-parallel": True, "cudagraph_capture_sizes": [1, 2],
                                    "kv_cache_memory_bytes": "4G", "speculative_config": {"method": "ngram", "num_speculative_tokens": 3},
                                    "compilation_config.cudagraph_mode": "FULL", "limit_mm_per_prompt.image": 0}},
            "whisper": {"model": "/models/whisper", "language": "de", "env": {"OMP_WAIT_POLICY": "ACTIVE"}},
        },
        "ray": {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}, "run": {"artifacts_dir": "results/here"},
        "workload": {"audio": {"source": "clips", "language": "de"}},
        "parameters": {"batched": {"target": "vllm.extra_args.max_num_queued_reqs", "values": [1, 2]}, "threads": {"target": "vllm.env.OMP_NUM_THREADS", "values": [1, 2]}},
        "promote": {"vllm": {"command": ["never", "read"]}},
    }  # fmt: skip
    assert load_config(space(tmp_path, tuning), []).services.vllm.extra_args["seed"] == 3


@pytest.mark.parametrize("name", [path.stem for path in SPACES_FOLDER.glob("*.yaml")])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_shipped_space_needs_trust_for_its_programs_alone(name: str, kind: str, tmp_path: Path) -> None:
    copied = shutil.copy(SPACES_FOLDER / f"{name}.yaml", tmp_path)
    if name == "voice_assistant":  # whose speech is a program of its own
        with pytest.raises(UserError, match=r"services\.tts\.command: it is a program that is started here"):
            load_config(str(copied), [], kind)
        return
    assert as_yaml(load_config(str(copied), [], kind)) == as_yaml(load_config(name, [], kind))


def test_a_link_among_the_shipped_spaces_does_not_lead_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, elsewhere = tmp_path / "spaces", tmp_path / "elsewhere"
    shipped.mkdir()
    elsewhere.mkdir()
    path = Path(space(elsewhere, {"services": {"vllm": {"env": {"LD_PRELOAD": "evil.so"}}}}))
    (shipped / "linked.yaml").symlink_to(path)
    for module in ("tune_gpu.common.own_files", "tune_gpu.config.loader"):
        monkeypatch.setattr(f"{module}.SPACES_FOLDER", shipped)
    with pytest.raises(UserError, match="LD_PRELOAD"):
        load_config("linked", [])
    shutil.copy(path, shipped / "own.yaml")
    assert load_config("own", []).services.vllm.env == {"LD_PRELOAD": "evil.so"}


@pytest.mark.parametrize("target", ["vllm.__dict__", "vllm.__class__", "__dict__.vllm", "vllm.__doc__", "whisper.__dict__"])
def test_a_knob_reaches_settings_only(target: str, tmp_path: Path) -> None:
    everything = {**vars(ExperimentConfig().services.vllm), "env": {"LD_PRELOAD": "evil.so"}}
    path = space(tmp_path, {"parameters": {"a": {"target": target, "values": [everything]}}})
    with pytest.raises(UserError):
        load_config(path, [])
    with pytest.raises(UserError, match=r"no such (setting|service)"):
        check_space(load_config(path, [], trust=True))


def test_every_setting_that_is_no_number_has_been_judged() -> None:
    """A new setting that is text, a list or a mapping needs trust until it is listed."""
    config = ExperimentConfig()
    config.workload.profiles, config.workload.auxiliary = {"a_caller": ProfileSettings()}, {"titles": AuxiliarySettings()}
    open_ = {_key(path) for path, _, _ in _leaves(config, config, ()) if _leaf_needs_trust(_key(path), ["x"]) is None}
    assert open_ == HARMLESS
    assert {key for key in PERMISSIONS if _leaf_needs_trust(key, True)} == set(PERMISSIONS)


@given(st.sampled_from(sorted(VARIABLES)), st.sampled_from(["/somewhere", "evil.so", "http://example.org", "a:b", "$(touch x)", "", "\n1", "1\n", "<redacted>", "evil"]))
def test_no_variable_takes_a_path_an_address_or_a_name(name: str, value: str) -> None:
    if not (name == "CT2_FORCE_CPU_ISA" and value.isupper()):
        assert variable_needs_trust(name, value, VARIABLES)


@given(st.text(), st.one_of(st.text(max_size=20), st.integers()))
def test_a_variable_that_is_not_listed_needs_trust(name: str, value: Any) -> None:
    assert name in VARIABLES or variable_needs_trust(name, value, VARIABLES)


def leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for each in inner for leaf in leaves(each)]


TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["/etc/passwd", "a.b", "evil:Class", "http://x", "--host=0.0.0.0", "ngram", "CUSTOM", "auto", "0.5", "4G"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["method", "model", "image", "backend", "mode"]), inner, max_size=3)),
)


@given(st.sampled_from(sorted(options())), st.integers(0, 3), st.sampled_from(["", ".model", ".a.b", ".mode", ".image+"]), VALUES)
def test_a_flag_without_trust_is_plain_and_has_a_plain_value(name: str, cut: int, below: str, value: Any) -> None:
    spelled = name[: len(name) - cut] + below
    if not spelled or problem_of(spelled, value) or flag_needs_trust(spelled, value):
        return
    option = read_name(spelled).known
    assert option is not None
    assert option.role is Role.PLAIN or option.name in ("compilation-config", "limit-mm-per-prompt", "speculative-config")
    for leaf in leaves(value):
        assert leaf is None or isinstance(leaf, (bool, int, float)) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*|-?\d[\d.]*[A-Za-z]{0,3}", leaf, re.ASCII)


@given(st.sampled_from(["model", "dtype", "load_format", "quantization", "compute_type", "language", "__dict__"]), VALUES)
def test_a_setting_without_trust_is_a_word_or_names_a_model(name: str, value: Any) -> None:
    if setting_needs_trust(name, value) is None:
        assert "://" not in str(value)
        assert name == "model" or all(leaf is None or isinstance(leaf, (bool, int, float)) or "/" not in leaf for leaf in leaves(value))


# Runs


def foreign_run(root: Path, *overrides: str, edit: Callable[[str], str] = lambda text: text.rpartition("# seal ")[0]) -> Path:
    """A run whose configuration was made elsewhere, or edited."""
    config = made_run(root, overrides=[*QUICK, *overrides]).path / "config.yaml"
    config.write_text(edit(config.read_text()))
    return config


PRELOAD = "services.vllm.env.LD_PRELOAD=evil.so"


def test_a_run_of_the_users_own_needs_no_trust(tmp_path: Path) -> None:
    made_run(tmp_path, overrides=[*QUICK, PRELOAD])
    assert read_finished_run(str(tmp_path), RUN_ID, [], "compare").config.services.vllm.env == {"LD_PRELOAD": "evil.so"}


@pytest.mark.parametrize("edit", [
    lambda text: text.rpartition("# seal ")[0], lambda text: text + " ", lambda text: text.replace("evil.so", "more.so"), lambda text: text + "# seal " + "0" * 64 + "\n",
    lambda text: text.rpartition("# seal ")[0] + "# seal " + "0" * 64 + "\n",
])  # fmt: skip
def test_a_run_without_a_valid_seal_is_foreign(edit: Callable[[str], str], tmp_path: Path) -> None:
    foreign_run(tmp_path, PRELOAD, edit=edit)
    with pytest.raises(UserError, match=r"services\.vllm\.env\.LD_PRELOAD: .* give --trust"):
        read_finished_run(str(tmp_path), RUN_ID, [], "compare")
    assert read_finished_run(str(tmp_path), RUN_ID, [], "compare", trust=True).winner == FAST


def test_a_foreign_run_lies_where_it_was_found(tmp_path: Path) -> None:
    foreign_run(tmp_path / "there", "run.port_range=[20000,20009]")
    (tmp_path / "there").rename(tmp_path / "here")
    run = read_finished_run(str(tmp_path / "here"), RUN_ID, [], "compare")
    assert run.config.run.artifacts_dir == str(tmp_path / "here")


def test_a_run_of_another_user_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "a", overrides=[*QUICK, PRELOAD])
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path / "cache of another"))
    with pytest.raises(UserError, match="LD_PRELOAD"):
        read_finished_run(str(tmp_path / "a"), RUN_ID, [], "compare")


def test_a_link_to_a_shipped_space_vouches_for_no_other_text(tmp_path: Path) -> None:
    """Whoever owns the folder can put the link there after the text was read."""
    text = foreign_run(tmp_path, PRELOAD).read_text()
    linked = tmp_path / "config.yaml"
    linked.symlink_to(SPACES_FOLDER / "spica_gpu_allocation.yaml")
    assert is_own(linked, linked.read_text())
    assert not is_own(linked, text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_seals_nothing(mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path))
    text = sealed("a: 1\n")
    assert is_own(tmp_path / "config.yaml", text)
    assert key_file().stat().st_mode & 0o777 == 0o600
    key_file().chmod(mode)
    assert not is_own(tmp_path / "config.yaml", text)
    assert sealed("a: 1\n") == "a: 1\n"


def test_a_key_that_is_a_link_or_cannot_be_made_seals_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key of another").write_bytes(b"k" * 32)
    (tmp_path / "key of another").chmod(0o600)
    (tmp_path / "seal_key").symlink_to(tmp_path / "key of another")
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path))
    assert sealed("a: 1\n") == "a: 1\n"
    monkeypatch.setenv("TUNE_GPU_CACHE", "/proc/nowhere")
    assert sealed("a: 1\n") == "a: 1\n"


@given(st.text(), st.text())
def test_a_seal_is_of_one_text(one: str, other: str) -> None:
    assert is_own(Path("/nowhere/config.yaml"), sealed(f"{one}\n"))
    assert one == other or not is_own(Path("/nowhere/config.yaml"), sealed(f"{one}\n").replace(f"{one}\n# seal", f"{other}\n# seal"))


def test_a_winner_outside_its_space_is_refused(tmp_path: Path) -> None:
    """config.yaml is sealed; summary.json is not."""
    knob = "parameters.parser={target: vllm.extra_args.tool_call_parser, values: [hermes, mistral], kind: categorical}"
    folder = made_run(tmp_path)
    config = load_config("spica_gpu_allocation", [*QUICK, knob, f"run.artifacts_dir={tmp_path}"], "cpu")
    (folder.path / "config.yaml").write_text(as_yaml(config))
    summary = json.loads((folder.path / "summary.json").read_text())
    for value, is_right in (("hermes", True), ("../evil", False)):
        assert flag_needs_trust("tool_call_parser", value) is None or not is_right
        summary["best"]["params"] = FAST | {"parser": value}
        (folder.path / "summary.json").write_text(json.dumps(summary))
        if is_right:
            assert read_finished_run(str(tmp_path), RUN_ID, [], "compare").winner["parser"] == value
        else:
            with pytest.raises(UserError, match=r"summary\.json: its best configuration is not in the space .*parser=\.\./evil"):
                read_finished_run(str(tmp_path), RUN_ID, [], "compare")


def test_a_recorded_run_from_elsewhere_is_read_without_trust() -> None:
    assert not is_own(ARTIFACTS / "x", (ARTIFACTS / "spica_gpu_allocation" / WHOLE / "config.yaml").read_text())
    assert load_config(str(ARTIFACTS / "spica_gpu_allocation" / WHOLE / "config.yaml"), []).name == "spica_gpu_allocation"


# Commands


@pytest.mark.parametrize("command", [
    ["launch", "--resume", RUN_ID], ["compare", RUN_ID], ["promote", RUN_ID], ["promote", RUN_ID, "--apply"], ["promote", "--rollback", RUN_ID],
])  # fmt: skip
def test_every_command_refuses_a_foreign_run_in_one_line(command: list[str], tmp_path: Path) -> None:
    foreign_run(tmp_path / "a", PRELOAD)
    ended = call(*command, f"run.artifacts_dir={tmp_path / 'a'}")
    assert ended.exit_code == 2, ended.output
    (line,) = ended.output.strip().splitlines()
    assert line.startswith("error: services.vllm.env.LD_PRELOAD: it is none of the variables that only tune")
    assert line.endswith("give --trust, which allows all that it sets.")


def test_the_run_that_is_compared_against_may_be_foreign_too(tmp_path: Path) -> None:
    made_run(tmp_path)
    other = made_run(tmp_path, run_id="20260131-130000", overrides=[*QUICK, PRELOAD]).path / "config.yaml"
    other.write_text(other.read_text().rpartition("# seal ")[0])
    ended = call("compare", RUN_ID, "--against", "20260131-130000", f"run.artifacts_dir={tmp_path}")
    assert (ended.exit_code, "LD_PRELOAD" in ended.output) == (2, True), ended.output


def test_launch_joins_no_cluster_that_a_foreign_space_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("tune_gpu.cli.launch.cards_of_cluster", lambda settings: asked.append(settings.address))
    monkeypatch.chdir(tmp_path)
    path = space(tmp_path, {"device": "auto", "ray": {"address": "127.0.0.1:1"}})
    ended = call("launch", path)
    assert (ended.exit_code, ended.output.startswith("error: ray.address: ")) == (2, True), ended.output
    assert not asked
    call("launch", path, "--trust", "run.port_range=[1]")
    call("launch", path, "ray.address=127.0.0.1:1", "run.port_range=[1]")
    assert asked == ["127.0.0.1:1"] * 2


def test_launch_takes_a_foreign_space_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = space(tmp_path, {"services": {"vllm": {"env": {"LD_PRELOAD": "evil.so"}}}, "objective": {"weights": {"wer": 1}}})
    assert "LD_PRELOAD: it is none" in call("launch", path).output
    assert "error: run.port_range=[1]" in call("launch", path, "--trust", "run.port_range=[1]").output


def test_plan_names_all_that_needs_trust_and_asks_no_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("tune_gpu.cli.plan.check_flags", lambda *_: asked.append(1))
    path = space(tmp_path, {"services": {"vllm": {"extra_args": {"worker_cls": "evil.Worker"}, "env": {"LD_PRELOAD": "evil.so"}}}})
    planned = call("plan", path, "--total-mib", "16000")
    assert "needs --trust: services.vllm.extra_args.worker_cls: it can run code of others" in planned.output
    assert "needs --trust: services.vllm.env.LD_PRELOAD: " in planned.output
    assert not asked
    document = json.loads(call("plan", path, "--total-mib", "16000", "--json").output)
    assert [each["key"] for each in document["needs_trust"]] == ["services.vllm.extra_args.worker_cls", "services.vllm.env.LD_PRELOAD"]
    call("plan", path, "--total-mib", "16000", "--trust")
    assert asked
    assert "trust" not in call("plan", space(tmp_path, {}), "--total-mib", "16000").output


# Refused for everybody


@pytest.mark.parametrize(("service", "name"), [
    ("vllm", "model"), ("vllm", "dtype"), ("vllm", "kv_cache_dtype"), ("vllm", "quantization"), ("vllm", "load_format"), ("vllm", "max_model_len"),
    ("vllm", "cpu_cores"), ("whisper", "model"), ("whisper", "compute_type"), ("whisper", "language"), ("whisper", "cpu_cores"),
])  # fmt: skip
@pytest.mark.parametrize("value", ["--host=0.0.0.0", "-x", "--config=/etc/passwd"])
def test_no_setting_takes_a_text_that_is_a_flag(service: str, name: str, value: str) -> None:
    config = load_config("spica_gpu_allocation", ["parameters={a: {target: whisper.beam_size, values: [1, 2]}}", "baseline={}"], "cpu")
    setattr(getattr(config.services, service), name, value)
    config.baseline = {}
    with pytest.raises(UserError, match=f"{service}.{name}="):
        check_config(config)
    given = [f"parameters.a={{target: {service}.{name}, values: ['{value}', b]}}", "baseline={}"]
    with pytest.raises(UserError, match=f"{service}.{name}"):
        check_config(load_config("spica_gpu_allocation", given, "cpu"))


def test_our_own_flags_come_last() -> None:
    from tune_gpu.services.faster_whisper.service import WhisperService
    from tune_gpu.services.vllm.server import VllmServer

    config = ExperimentConfig()
    config.services.vllm.extra_args = {"seed": 1}
    server = VllmServer(config.services.vllm, device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
    assert server.arguments()[-8::2] == ["--model", "--served-model-name", "--host", "--port"]
    assert server.arguments()[-4:] == ["--host", "127.0.0.1", "--port", "1"]
    whisper = WhisperService(config.services.whisper, device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
    try:
        assert whisper.command()[-4:] == ["--host", "127.0.0.1", "--port", "1"]
    finally:
        whisper.stop()


def test_no_key_is_left_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path / "made"))
    first, second = sealed("a: 1\n"), sealed("a: 1\n")
    assert first == second
    assert os.listdir(tmp_path / "made") == ["seal_key"]


@pytest.mark.parametrize(("source", "trusted"), [("demonstration", True), ("samples", True), ("theirs.jsonl", False)])
def test_a_built_in_source_of_sessions_needs_no_trust(source: str, trusted: bool) -> None:
    assert (_leaf_needs_trust("workload.profiles.*.source", source) is None) is trusted
