"""A configuration as files that can be deployed: vLLM's own YAML, Whisper's settings, an env file for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tune_gpu.candidate import deployment
from tune_gpu.config import ExperimentConfig, ServiceTarget
from tune_gpu.errors import UserError
from tune_gpu.redaction import holds_secret
from tune_gpu.services.launchers import API_SERVER_MODULE
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.secret_flags import variables_of
from tune_gpu.services.vllm_server import parse_cores, serve_settings
from tune_gpu.services.whisper import ENVIRONMENT, whisper_settings

SECRETS = "secrets.env"
"""In the install folder, written by whoever owns the keys, read by the units; never by this program."""


@dataclass(frozen=True)
class Service:
    """One service as it will be deployed."""

    name: str
    """`vllm` or `whisper`."""
    unit: str
    command: tuple[str, ...]
    config_name: str
    config_text: str
    env: Mapping[str, str]
    cores: tuple[int, ...] | None
    """CPU only: the cores it is held to."""
    health_url: str
    """Answers once it is ready."""
    health_within_s: float
    secrets: tuple[str, ...] = ()
    """Settings that are secrets: left out of both files, because what is written for review is read by many."""

    def config_value(self, key: str) -> Any:
        """One setting of its configuration."""
        return yaml.safe_load(self.config_text)[key]

    @property
    def env_text(self) -> str:
        """Its env file: NAME="value" lines, as systemd reads them."""
        quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in sorted(self.env.items())}
        notes = "".join(f"# {name} is a secret: {SECRETS} has it\n" for name in self.secrets)
        return notes + "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def services_of(config: ExperimentConfig, params: Mapping[str, Any], kind: str) -> list[Service]:
    """Both services in the order in which they start: Whisper first, because vLLM takes its share of what is left.

    Args:
        config: of the run; its `promote` says where and how.
        params: what is deployed.
        kind: `cuda` or `cpu`.

    Raises:
        UserError: a unit or an address that is none.
    """
    settings, services = config.promote, deployment(config, params)
    for name in ("vllm", "whisper"):
        _check(name, getattr(settings, name))
    install = Path(settings.install_dir).expanduser().resolve()
    host, port = _address(settings.vllm)
    vllm = {
        "model": resolve_llm(services.vllm.model),
        "served-model-name": settings.served_model_name or services.vllm.model,
        "host": host,
        "port": port,
        **serve_settings(services.vllm),
    }
    host, port = _address(settings.whisper)
    whisper = {"name": f"whisper-{services.whisper.model}", "host": host, "port": port, **whisper_settings(services.whisper, kind)}
    found = []
    for name, target, content, env, cores in (
        ("whisper", settings.whisper, whisper, ENVIRONMENT | _card_order(kind) | services.whisper.env, services.whisper.cpu_cores),
        (
            "vllm",
            settings.vllm,
            vllm,
            _vllm_env(services.vllm.model, services.vllm.cpu_cores, kind) | variables_of(services.vllm.extra_args) | services.vllm.env,
            services.vllm.cpu_cores,
        ),
    ):
        text = f"# {name}, as tune_gpu measured it: {', '.join(f'{key}={value}' for key, value in params.items())}\n"
        command = (*(target.command or _own_command(name)), "--config", str(install / f"{name}.yaml"))
        held = parse_cores(cores) if kind == "cpu" else None
        found.append(
            Service(
                name,
                target.unit,
                command,
                f"{name}.yaml",
                text + yaml.safe_dump({key: value for key, value in content.items() if not holds_secret(key, value)}, sort_keys=False),
                {key: value for key, value in env.items() if not holds_secret(key, value)},
                tuple(held) if held else None,
                f"{target.url.rstrip('/')}/health",
                settings.health_deadline_s,
                tuple(sorted(key for key, value in (content | env).items() if holds_secret(key, value))),
            )
        )
    return found


def _own_command(name: str) -> tuple[str, ...]:
    if name == "whisper":
        return (sys.executable, "-P", "-m", "tune_gpu.services.whisper_server")
    try:
        metadata.distribution("vllm")
    except metadata.PackageNotFoundError:
        # The command `vllm` asks for its own distribution's version, which the CPU build has under another name.
        return (sys.executable, "-m", API_SERVER_MODULE)
    return (str(Path(sys.executable).parent / "vllm"), "serve")


def _vllm_env(model: str, cores: str | None, kind: str) -> dict[str, str]:
    """What the measured engines had around them (`services.vllm_server.engine_environment`)."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if os.path.isdir(resolve_llm(model)):
        env["HF_HUB_OFFLINE"] = "1"
    if kind == "cpu":
        n_cores = len(parse_cores(cores) or sorted(os.sched_getaffinity(0)))
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(n_cores), "CUDA_VISIBLE_DEVICES": ""}
    return env | _card_order(kind)


def _card_order(kind: str) -> dict[str, str]:
    """As they were measured: a unit's CUDA_VISIBLE_DEVICES=1 is the card that NVML calls 1, not the second fastest (vLLM warns of the other order)."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if kind == "cuda" else {}


def _address(target: ServiceTarget) -> tuple[str, int]:
    url = urlsplit(target.url)
    return str(url.hostname), int(url.port or 80)


def _check(name: str, target: ServiceTarget) -> None:
    try:
        url = urlsplit(target.url)
        good = url.scheme == "http" and url.hostname is not None and (url.port or 80) > 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"promote.{name}.url={target.url}: allowed is http://HOST:PORT")
    if not target.unit or "/" in target.unit:
        raise UserError(f"promote.{name}.unit={target.unit}: allowed is the name of a unit")
