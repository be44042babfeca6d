"""Render a configuration as deployable files: vLLM's own YAML, Whisper's settings, and an env file for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tune_gpu.artifacts.redaction import holds_secret
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig, ServiceTarget
from tune_gpu.config.targets import settings_with
from tune_gpu.config.texts import check_line, check_variable
from tune_gpu.promote.env_file import SECRETS
from tune_gpu.services.faster_whisper.kind import KIND as FASTER_WHISPER
from tune_gpu.services.vllm.kind import KIND as VLLM


@dataclass(frozen=True)
class DeployedService:
    """One service as it will be deployed."""

    name: str
    """`vllm` or `whisper`."""
    unit: str
    command: tuple[str, ...]
    config_name: str
    config_text: str
    env: Mapping[str, str]
    cores: tuple[int, ...] | None
    """The cores that the service is restricted to, on the CPU only."""
    health_url: str
    """Address that answers once the service is ready."""
    health_within_s: float
    secrets: tuple[str, ...] = ()
    """Names of settings that are secrets. They are left out of both files, because many people read the files for review."""

    def config_value(self, key: str) -> Any:
        """Return one setting of the service's configuration."""
        return yaml.safe_load(self.config_text)[key]

    @property
    def env_text(self) -> str:
        """Return the service's env file: NAME="value" lines, as systemd reads them."""
        quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in sorted(self.env.items())}
        notes = "".join(f"# {name} is a secret: it is in {SECRETS}\n" for name in self.secrets)
        return notes + "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def services_of(config: ExperimentConfig, params: Mapping[str, Any], kind: str) -> list[DeployedService]:
    """Return both services in the order in which they start: Whisper first, because vLLM takes its share of the memory that is left.

    Args:
        config: the run's configuration, with the settings `promote`.
        params: the parameters to deploy.
        kind: `cuda` or `cpu`.

    Raises:
        UserError: an invalid unit or address.
    """
    settings, services = config.promote, settings_with(config, params)
    check(settings, "promote.")
    for key, value in params.items():  # they are written into a comment
        check_line("the winner's parameters", f"{key}={value}")
    install = Path(settings.install_dir).expanduser().resolve()
    found = []
    for name, kind_of_service, target, model in (
        ("whisper", FASTER_WHISPER, settings.whisper, ""),
        ("vllm", VLLM, settings.vllm, settings.served_model_name or ""),
    ):
        host, port = _address(target)
        deployable = kind_of_service.deployable(name, services[name], kind, host=host, port=port, model=model)
        content, env = deployable.config, deployable.env
        values = ", ".join(f"{key}={value}" for key, value in params.items()).encode("unicode_escape").decode()  # a line break would end the comment
        text = f"# {name}, as tune_gpu measured it: {values}\n"
        command = (*(target.command or deployable.command), "--config", str(install / f"{name}.yaml"))
        held = parse_cores(services[name].cpu_cores) if kind == "cpu" else None
        _check_env(name, env)
        found.append(
            DeployedService(
                name,
                target.unit,
                command,
                f"{name}.yaml",
                text + yaml.safe_dump({key: value for key, value in content.items() if not holds_secret(key, value)}, sort_keys=False),
                {key: value for key, value in env.items() if not holds_secret(key, value)},
                tuple(held) if held else None,
                f"{target.url.rstrip('/')}{deployable.health}",
                settings.health_deadline_s,
                tuple(sorted(key for key, value in {**content, **env}.items() if holds_secret(key, value))),
            )
        )
    return found


def _address(target: ServiceTarget) -> tuple[str, int]:
    url = urlsplit(target.url)
    return str(url.hostname), int(url.port or 80)


def _check_env(name: str, env: Mapping[str, str]) -> None:
    """Raise UserError for a variable that does not fit on one line of an env file."""
    for variable, value in env.items():
        check_variable(f"services.{name}.env", variable)
        check_line(f"services.{name}.env.{variable}", value)
