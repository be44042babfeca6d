"""What is measured is what will run: one function makes the environment and the flags of both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_run import FAST, QUICK
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.space_check import check_space
from tune_gpu.promote.render import services_of
from tune_gpu.services.faster_whisper import service as whisper
from tune_gpu.services.faster_whisper.server import parse_arguments
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.vllm import setup as vllm_setup
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import engine_environment, serve_flags

NAMES = st.sampled_from([*vllm_setup.HELD, *whisper.HELD, "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "DO_NOT_TRACK", "VLLM_LOGGING_LEVEL", "A"])


def measured_environments(config: ExperimentConfig, kind: str) -> dict[str, dict[str, str]]:
    """The environment of each measured service, beside an empty one of this process."""
    services = settings_with(config, {})
    listener = WhisperService(services.whisper, device=kind, port_range=[1, 1], choose_port=lambda _range: 1)
    listener.stop()
    ears = {key: value for key, value in listener.environment().items() if key not in os.environ or value != os.environ[key]}
    return {"vllm": engine_environment(services.vllm, "key", kind, "scratch", base={}), "whisper": ears}


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_environment_differs_in_named_variables_only(kind: str) -> None:
    config, bare = load_config("spica_gpu_allocation", [], kind), load_config("spica_gpu_allocation", [], kind)
    secret = {"VLLM_API_KEY", "TUNE_GPU_API_KEY"}  # come from a file of the host's owner

    @given(users=st.dictionaries(NAMES, st.sampled_from(["x", "2"])))
    @settings(max_examples=40)
    def check(users: dict[str, str]) -> None:
        config.services.vllm.env, config.services.whisper.env = dict(users), dict(users)
        plain, measured = measured_environments(bare, kind), measured_environments(config, kind)
        deployed = {service.name: dict(service.env) for service in services_of(config, {}, kind)}
        for name, held in (("vllm", vllm_setup.HELD), ("whisper", whisper.HELD)):
            assert deployed[name].items() >= {key: value for key, value in users.items() if key not in secret}.items(), "promoted they are the user's"
            for key in (measured[name].keys() | deployed[name].keys()) - set(held) - secret:
                assert measured[name].get(key) == deployed[name].get(key), key
            for key in set(held) & plain[name].keys() - {"PYTHONPATH"} - secret:
                # Where a service was put, and its folder, are drawn anew for each
                assert key == "TMPDIR" or measured[name][key] == plain[name][key], key
            assert measured[name].get("TMPDIR") not in users.values()

    check()


def test_every_variable_that_only_an_evaluation_sets_is_named() -> None:
    config = load_config("spica_gpu_allocation", [], "cpu")
    measured = engine_environment(config.services.vllm, "key", "cpu", "scratch", base={})
    assert measured.keys() - services_of(config, {}, "cpu")[1].env.keys() == set(vllm_setup.EVALUATION_ONLY)


def test_a_users_modules_do_not_hide_this_program_from_a_measured_whisper() -> None:
    service = WhisperService(WhisperSettings(env={"PYTHONPATH": "/theirs"}), device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
    service.stop()
    first, *rest = service.environment()["PYTHONPATH"].split(":")
    assert (first, rest) == (str(Path(whisper.__file__).parents[3]), ["/theirs"])


@pytest.mark.parametrize("change", [
    {}, {"enable_prefix_caching": False}, {"enable_prefix_caching": True}, {"enable_chunked_prefill": False}, {"enforce_eager": True}, {"block_size": 16},
    {"dtype": "float16"}, {"kv_cache_dtype": "fp8"}, {"load_format": "dummy"}, {"max_model_len": "auto"}, {"max_model_len": 64}, {"max_num_seqs": 4},
    {"max_num_batched_tokens": 64}, {"quantization": "awq"}, {"tensor_parallel_size": 2}, {"gpu_memory_utilization": 0.3},
    {"extra_args": {"data_parallel_size": 2, "allow-credentials": True, "cudagraph_capture_sizes": [1, 2]}},
])  # fmt: skip
def test_the_deployed_file_holds_the_measured_flags(change: dict[str, Any]) -> None:
    config = load_config("spica_gpu_allocation", [], "cpu")
    for name, value in change.items():
        setattr(config.services.vllm, name, value)
    file = yaml.safe_load(services_of(config, {}, "cpu")[1].config_text)
    place = {"model", "served-model-name", "host", "port"}
    flags = [part for name, value in file.items() if name not in place for part in (f"--{name}", *_words(value))]
    server = VllmServer(config.services.vllm, device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
    assert server.arguments()[:-8] == flags == serve_flags(config.services.vllm)


def _words(value: Any) -> list[str]:
    return [] if value is True else [str(each) for each in value] if isinstance(value, list) else [str(value)]


def test_whispers_file_means_what_its_command_line_meant(tmp_path: Any) -> None:
    config = load_config("spica_gpu_allocation", [*QUICK, "services.whisper.vad_filter=true", "services.whisper.beam_size=3"], "cpu")
    deployed = services_of(config, FAST, "cpu")[0]
    (tmp_path / "whisper.yaml").write_text(deployed.config_text)
    service = WhisperService(settings_with(config, FAST).whisper, device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
    service.stop()
    measured, file = (vars(parse_arguments(argv)) for argv in (service.command()[4:], ["--config", str(tmp_path / "whisper.yaml")]))
    assert {key for key in measured if measured[key] != file[key]} <= {"name", "port", "config"}


@pytest.mark.parametrize("target", ["vllm.env.VLLM_API_KEY", "vllm.env.TMPDIR", "vllm.env.CUDA_VISIBLE_DEVICES", "whisper.env.TUNE_GPU_API_KEY",
                                    "vllm.env.VLLM_USE_RUST_FRONTEND"])  # fmt: skip
def test_a_variable_that_reaches_nothing_is_no_knob(target: str) -> None:
    config = load_config("spica_gpu_allocation", [f"parameters.a={{target: {target}, values: ['1', '2']}}"], "cpu")
    with pytest.raises(UserError, match=rf"parameters\.a: {target}: "):
        check_space(config)


def test_a_variable_that_only_the_deployed_command_obeys_is_refused() -> None:
    config = load_config("spica_gpu_allocation", ["services.vllm.env.VLLM_USE_RUST_FRONTEND='1'"], "cpu")
    with pytest.raises(UserError, match=r"services\.vllm\.env\.VLLM_USE_RUST_FRONTEND: `vllm serve` obeys it"):
        check_space(config)


def test_a_server_is_known_by_its_own_key_whatever_the_settings_say() -> None:
    environment = engine_environment(VllmSettings(env={"VLLM_API_KEY": "theirs", "TMPDIR": "/theirs"}), "ours", "cpu", "/ours", base={})
    assert (environment["VLLM_API_KEY"], environment["TMPDIR"]) == ("ours", "/ours")
