"""Render a configuration as deployable files: for each service its environment, and its configuration if its program reads a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tune_gpu.artifacts.redaction import holds_secret
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig, ServiceTarget
from tune_gpu.config.space_catalogue import protocols_of
from tune_gpu.config.targets import settings_with
from tune_gpu.config.texts import check_line, check_variable
from tune_gpu.promote.env_file import SECRETS
from tune_gpu.promote.places import Place, address_of, check_apart, check_named_model, key_of_target, targets_of
from tune_gpu.services import registry
from tune_gpu.services.base import LaunchSite, Service, start_order
from tune_gpu.services.deployable import Deployable


@dataclass(frozen=True)
class DeployedService:
    """One service as it will be deployed."""

    place: Place
    service: Service
    """Its kind, and its settings as they were measured."""
    deployable: Deployable
    device: str
    command: tuple[str, ...]
    """Program and arguments."""
    note: str
    """A comment for the first line of its files."""
    health_within_s: float
    protocol: Protocol | None = None
    """Of its requests; None if no request can drive it."""

    @property
    def name(self) -> str:
        """Return the name of the service."""
        return self.place.name

    @property
    def unit(self) -> str:
        """Return the unit that runs it."""
        return self.place.unit

    @property
    def health_url(self) -> str:
        """Return the address that answers once the service is ready."""
        return self.place.health_url

    @property
    def cores(self) -> tuple[int, ...] | None:
        """Return the cores that the service is restricted to, on the CPU only."""
        cores = getattr(self.service.settings, "cpu_cores", None)
        held = parse_cores(cores) if self.device == "cpu" else None
        return tuple(held) if held else None

    @property
    def config_name(self) -> str | None:
        """Return the name of its configuration file, or None if its program reads none."""
        return f"{self.name}.yaml" if self.deployable.config else None

    @property
    def config(self) -> Mapping[str, Any]:
        """Return its configuration, without secrets: many people read the files for review."""
        return {key: value for key, value in self.deployable.config.items() if not holds_secret(key, value)}

    @property
    def config_text(self) -> str:
        """Return its configuration file."""
        return self.note + yaml.safe_dump(dict(self.config), sort_keys=False)

    def config_value(self, key: str) -> Any:
        """Return one setting of the service's configuration."""
        return yaml.safe_load(self.config_text)[key]

    @property
    def env(self) -> Mapping[str, str]:
        """Return its variables, without secrets."""
        return {key: value for key, value in self.deployable.env.items() if not holds_secret(key, value)}

    @property
    def env_text(self) -> str:
        """Return the service's env file: NAME="value" lines, as systemd reads them."""
        quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in sorted(self.env.items())}
        notes = "" if self.config_name else self.note
        notes += "".join(f"# {name} is a secret: it is in {SECRETS}\n" for name in self.secrets)
        return notes + "".join(f'{name}="{value}"\n' for name, value in quoted.items())

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of its settings that are secrets, and so in neither file."""
        every = {**self.deployable.config, **self.deployable.env}
        return tuple(sorted(key for key, value in every.items() if holds_secret(key, value)))


def services_of(config: ExperimentConfig, params: Mapping[str, Any], device: str) -> list[DeployedService]:
    """Return the services that are deployed, in the order in which they start (`start_order`).

    Args:
        config: the run's configuration, with the settings `promote`.
        params: the parameters to deploy.
        device: `cuda` or `cpu`.

    Raises:
        UserError: an invalid unit or address, a target for a service that the run does not have or that is not deployed, or nothing to deploy.
    """
    settings = config.promote
    check(settings, "promote.")
    for key, value in params.items():  # they are written into a comment
        check_line("the winner's parameters", f"{key}={value}")
    services = registry.services_of(settings_with(config, params))
    targets = targets_of(settings, services)
    install = Path(settings.install_dir).expanduser().resolve()
    values = ", ".join(f"{key}={value}" for key, value in params.items()).encode("unicode_escape").decode()  # a line break would end the comment
    protocols = protocols_of(config.services)
    found, elsewhere = [], []
    for service in start_order(services):
        target = targets[service.name]
        host, port = address_of(target.url)
        deployable = service.kind.deployable(service.name, service.settings, device, host=host, port=port, model=target.model)
        if deployable is None:
            elsewhere.append((service.name, _running(service, config, device)))
            continue
        place = _place(service, target, deployable)
        check_named_model(place, target.model, deployable.model)
        command = _command(target, deployable, install / f"{service.name}.yaml")
        _check_lines(service.name, command, deployable.env)
        note = f"# {service.name}, as tune_gpu measured it: {values}\n"
        found.append(DeployedService(place, service, deployable, device, command, note, settings.health_deadline_s, protocols[service.name]))
    _check_deployed(settings.services, [name for name, _ in elsewhere])
    if not found:
        names = ", ".join(name for name, _ in elsewhere)
        raise UserError(f"services: all run already ({names}), so there is nothing to deploy. Promote a run that has a service of another kind.")
    check_apart([service.place for service in found], elsewhere)
    return found


def not_deployed(config: ExperimentConfig, deployed: Sequence[DeployedService]) -> list[str]:
    """Return the names of the services that run already, which are not deployed."""
    names = [service.name for service in deployed]
    return [name for name, _ in config.services.items() if name not in names]


def _running(service: Service, config: ExperimentConfig, device: str) -> str:
    """Return the address of a service that runs already."""
    return service.launch(LaunchSite(device, config.run.port_range)).endpoint.url


def _place(service: Service, target: ServiceTarget, deployable: Deployable) -> Place:
    key = key_of_target(service)
    given = target.key_env or ("" if key == f"promote.{service.name}" else next(iter(deployable.key_variables), ""))
    return Place(service.name, target.unit, target.url, given, deployable.health, key)


def _command(target: ServiceTarget, deployable: Deployable, config: Path) -> tuple[str, ...]:
    of_file = ("--config", str(config)) if deployable.config else ()
    return (*(target.command or deployable.command), *deployable.words, *of_file)


def _check_lines(name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise UserError for an argument or a variable that does not fit on one line of a unit or an env file."""
    for word in command:
        check_line(f"services.{name}.command", word)
    for variable, value in env.items():
        check_variable(f"services.{name}.env", variable)
        check_line(f"services.{name}.env.{variable}", value)


def _check_deployed(given: Mapping[str, ServiceTarget], elsewhere: Sequence[str]) -> None:
    if name := next((name for name in given if name in elsewhere), None):
        raise UserError(f"promote.services.{name}: it runs already, so it is not deployed. Remove that setting.")

