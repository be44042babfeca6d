"""The files say exactly what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.made_run import FAST, QUICK
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.promote.bundle import bundle_of, write_bundle
from tune_gpu.promote.env_file import read_env
from tune_gpu.promote.render import services_of
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.systemd import Systemd, _quoted
from tune_gpu.services.faster_whisper.server import parse_arguments
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import engine_environment, serve_flags


@pytest.mark.parametrize(("extra", "flags"), [
    # What vLLM 0.32's own parser takes; it refuses '[1, 2, 4]' (invalid int value) and --no-disable-log-stats (unrecognized)
    ({"cudagraph_capture_sizes": [1, 2, 4]}, ["--cudagraph-capture-sizes", "1", "2", "4"]),
    ({"cpu-offload-params": ["gate_up_proj", "down_proj"]}, ["--cpu-offload-params", "gate_up_proj", "down_proj"]),
    ({"lora_modules": [{"name": "a", "path": "b"}]}, ["--lora-modules", '{"name": "a", "path": "b"}']),
    ({"allowed-origins": ["*"]}, ["--allowed-origins", '["*"]']), ({"cudagraph_capture_sizes": []}, []),
    ({"disable_log_stats": False}, []), ({"disable-log-stats": True}, ["--disable-log-stats"]), ({"enable-lora": False}, ["--no-enable-lora"]),
])
def test_lists_and_bare_switches_are_written_as_vllm_takes_them(extra: dict[str, object], flags: list[str]) -> None:
    """Flags of several values, and switches that have no negative form."""
    settings = VllmSettings(extra_args=extra)
    assert serve_flags(settings)[len(serve_flags(VllmSettings())):] == flags


def test_a_value_with_line_breaks_is_refused() -> None:
    knob = "parameters.template={target: vllm.extra_args.chat_template, kind: categorical, values: ['a', 'b']}"
    config = load_config("spica_gpu_allocation", [*QUICK, knob], "cpu")
    with pytest.raises(UserError, match="line break or a control character"):
        services_of(config, FAST | {"template": "x\nport: 1\u2028host: all\x07"}, "cpu")


def test_a_switch_with_the_name_of_a_secret_is_deployed() -> None:
    config = load_config("spica_gpu_allocation", [*QUICK, "services.vllm.extra_args.allow-credentials=true"], "cpu")
    assert services_of(config, FAST, "cpu")[1].config_value("allow-credentials") is True


def test_whispers_yaml_is_read_by_its_server(tmp_path: Path) -> None:
    config = load_config("spica_gpu_allocation", [*QUICK, "services.whisper.vad_filter=true", f"promote.install_dir={tmp_path}"], "cpu")
    whisper, vllm = services_of(config, FAST, "cpu")
    (tmp_path / "whisper.yaml").write_text(whisper.config_text)
    given = parse_arguments(["--config", str(tmp_path / "whisper.yaml"), "--port", "1"])
    assert (given.vad_filter, given.condition_on_previous_text, given.compute_type, given.port) == (True, False, "int8", 1)
    assert given.model.endswith("model")
    assert (whisper.cores, vllm.cores) == ((1,), (0,))
    assert vllm.command[-2:] == ("--config", str(tmp_path / "vllm.yaml"))
    assert "whisper_model_size=tiny.en" in vllm.config_text.splitlines()[0]


@pytest.mark.parametrize("value", ["plain", "with space", 'with "quotes"', "back\\slash", "", "a=b"])
def test_an_env_file_gives_back_what_was_put_in(tmp_path: Path, value: str) -> None:
    config = load_config("spica_gpu_allocation", QUICK, "cpu")
    config.services.vllm.env = {"KEY": value}
    _, vllm = services_of(config, FAST, "cpu")
    (tmp_path / "vllm.env").write_text(vllm.env_text)
    assert read_env(tmp_path / "vllm.env")["KEY"] == value
    assert read_env(tmp_path / "vllm.env")["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_command_line_is_quoted_as_systemd_reads_it() -> None:
    assert _quoted("plain") == "plain"
    assert _quoted("100%") == "100%%"
    assert _quoted("$HOME") == "$$HOME"
    assert _quoted('a "b"') == '"a \\"b\\""'


def test_no_deployed_program_takes_modules_from_the_folder_where_it_starts() -> None:
    """A unit, or a shell, may stand in a folder that others write to."""
    for service in services_of(load_config("spica_gpu_allocation", QUICK, "cpu"), FAST, "cpu"):
        assert "-m" not in service.command or service.command[1] == "-P", service.command


def test_a_drop_in_leaves_nothing_of_what_the_unit_ran_and_where(tmp_path: Path) -> None:
    """Both settings are lists in systemd: without an empty one in front, what the unit's own file says stays in force beside it."""
    services = services_of(load_config("spica_gpu_allocation", QUICK, "cpu"), FAST, "cpu")
    for text in Systemd(tmp_path).unit_files(services, tmp_path).values():
        lines = text.splitlines()
        for setting in ("ExecStart", "CPUAffinity"):
            first, *rest = [line for line in lines if line.startswith(f"{setting}=")]
            assert first == f"{setting}="
            assert len(rest) == 1


def test_unit_after_whisper_starts_once_it_is_ready_after_a_reboot(tmp_path: Path) -> None:
    """`After=` orders starts; a start lasts until ExecStartPost= has ended (systemd.service(5)), and not longer than TimeoutStartSec=."""
    whisper, vllm = Systemd(tmp_path).unit_files(services_of(load_config("spica_gpu_allocation", QUICK, "cpu"), FAST, "cpu"), tmp_path).values()
    assert "After=whisper.service" in vllm.splitlines()
    (wait,) = [line for line in whisper.splitlines() if line.startswith("ExecStartPost=")]
    assert wait.endswith(" -P -m tune_gpu.services.readiness http://127.0.0.1:8001/health 300")
    assert wait.startswith("ExecStartPost=-/"), "a Whisper that does not get ready does not keep vLLM down"
    (limit,) = [line for line in whisper.splitlines() if line.startswith("TimeoutStartSec=")]
    assert float(limit.partition("=")[2]) > 300
    assert "ExecStartPost" not in vllm


def test_a_secret_is_named_and_never_written() -> None:
    config = load_config("spica_gpu_allocation", QUICK, "cpu")
    config.services.vllm.env = {"HF_TOKEN": "hf_of_somebody"}
    config.services.vllm.extra_args = {"api-key": "opensesame", "seed": 1}
    _, vllm = services_of(config, FAST, "cpu")
    assert "hf_of_somebody" not in vllm.env_text
    assert "# HF_TOKEN is a secret: it is in secrets.env" in vllm.env_text.splitlines()
    assert "opensesame" not in vllm.config_text
    assert yaml.safe_load(vllm.config_text)["seed"] == 1
    assert vllm.secrets == ("HF_TOKEN", "api-key")


def test_a_token_flag_and_an_address_with_a_password_are_not_written() -> None:
    config = load_config("spica_gpu_allocation", QUICK, "cpu")
    config.services.vllm.env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://somebody:opensesame@collector"}
    config.services.vllm.extra_args = {"hf-token": "of-somebody"}
    _, vllm = services_of(config, FAST, "cpu")
    for text in (vllm.env_text, vllm.config_text, " ".join(vllm.command)):
        assert "of-somebody" not in text
        assert "opensesame" not in text
    assert vllm.secrets == ("HF_TOKEN", "OTEL_EXPORTER_OTLP_ENDPOINT")


def test_deployed_whisper_waits_as_the_measured_one() -> None:
    whisper, _ = services_of(load_config("spica_gpu_allocation", QUICK, "cpu"), FAST, "cpu")
    assert whisper.env["OMP_WAIT_POLICY"] == "PASSIVE"
    config = load_config("spica_gpu_allocation", [*QUICK, "services.whisper.env={OMP_WAIT_POLICY: ACTIVE}"], "cpu")
    assert services_of(config, FAST, "cpu")[0].env["OMP_WAIT_POLICY"] == "ACTIVE", "a setting of the user's wins, as it does in a trial"


def test_deployed_service_counts_cards_as_the_measured_one() -> None:
    config = load_config("spica_gpu_allocation", [], "cuda")
    measured = engine_environment(config.services.vllm, "", "cuda", "", base={})["CUDA_DEVICE_ORDER"]
    assert [service.env.get("CUDA_DEVICE_ORDER") for service in services_of(config, {}, "cuda")] == [measured, measured]
    config.services.vllm.env = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert [service.env["CUDA_DEVICE_ORDER"] for service in services_of(config, {}, "cuda")] == [measured, "FASTEST_FIRST"]
    assert all("CUDA_DEVICE_ORDER" not in service.env for service in services_of(load_config("spica_gpu_allocation", QUICK, "cpu"), FAST, "cpu"))


def test_the_differences_for_review_hold_no_secret_of_what_is_installed(tmp_path: Path) -> None:
    config = load_config("spica_gpu_allocation", [*QUICK, f"promote.install_dir={tmp_path / 'etc'}"], "cpu")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "vllm.env").write_text('HF_TOKEN="of-somebody"\nVLLM_LOG="a"\n')
    (tmp_path / "gate.json").write_text("{}")
    target = ProcessSupervisor(tmp_path / "units")
    bundle = bundle_of(services_of(config, FAST, "cpu"), target, tmp_path / "etc")
    write_bundle(tmp_path, bundle, bundle, {})
    differences = (tmp_path / "changes.diff").read_text()
    assert '-HF_TOKEN="<redacted>"' in differences
    assert '-VLLM_LOG="a"' in differences
