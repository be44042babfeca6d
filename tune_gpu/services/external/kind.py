"""The kind `external`: a service that runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config import rules
from tune_gpu.config.run_settings import RunSettings
from tune_gpu.services.apis import APIS
from tune_gpu.services.base import Gpus, LaunchSite, fingerprint
from tune_gpu.services.external.service import ExternalService
from tune_gpu.services.external.settings import ExternalSettings
from tune_gpu.services.findings import DoctorFinding, Machine, ok
from tune_gpu.services.memory_values import DeviceMemory, Footprint


class External:
    """A server that is neither started nor stopped. Whatever it holds on a card is a neighbour's memory."""

    name = "external"
    Settings = ExternalSettings
    held: tuple[str, ...] = ()
    card_settings: tuple[str, ...] = ()

    def protocol(self, settings: ExternalSettings) -> Protocol | None:
        """Return the protocol of its API, or None if it is never asked."""
        return APIS[settings.api]

    def reserves(self, _settings: ExternalSettings) -> bool:
        """Return False: its memory is taken already."""
        return False

    def reuse_key(self, settings: ExternalSettings) -> str:
        """Return a text that is equal for equal settings."""
        return fingerprint(asdict(settings))

    def gpus(self, _settings: ExternalSettings) -> Gpus:
        """Return no card: it takes none of the trial's."""
        return Gpus(0)

    def footprint(self, _settings: ExternalSettings, _device: DeviceMemory) -> Footprint:
        """Return nothing: what it holds is a neighbour's memory already."""
        return Footprint(0.0)

    def memory(self, _store: Any, _version: str | None, *, warm: bool) -> None:
        """Return None: it reserves nothing."""

    def missing(self, _device: str) -> None:
        """Return None: nothing of it is started here."""

    def examine(self, _machine: Machine) -> Iterator[DoctorFinding]:
        """Yield nothing: whoever runs it has what it needs."""
        yield from ()

    def examine_service(self, name: str, settings: ExternalSettings) -> Iterator[DoctorFinding]:
        """Yield where it answers: `check` has asked it."""
        yield ok(name, f"answers at {settings.url}")

    def check_entry(self, key: str, setting: str, entry: str, value: Any) -> None:
        """Do nothing: it has no mapping."""

    def check(self, name: str, settings: ExternalSettings, *, local: bool) -> None:
        """Raise UserError for settings that contradict their rules, a key that is not set, and a server that does not answer."""
        at = f"services.{name}."
        rules.check(settings, at)
        if not local:
            return
        variable = settings.key_env
        if variable is not None and not os.environ.get(variable, "").isprintable():
            raise UserError(f"{at}key_env={variable}: its value has a control character, such as a line break. Set the variable to the key alone.")
        if variable is not None and not os.environ.get(variable):
            raise UserError(f"{at}key_env={variable}: the variable is not set. Set it to the key of the service.")
        ExternalService(name, settings).check()

    def launch(self, name: str, settings: ExternalSettings, _site: LaunchSite) -> ExternalService:
        """Return the service, of which nothing has been asked yet."""
        return ExternalService(name, settings)

    def deployable(self, _name: str, _settings: ExternalSettings, _device: str, *, host: str, port: int, model: str = "") -> None:
        """Return None: whoever runs it deploys it."""

    def host(self, _run: RunSettings, _device: str) -> None:
        """Return None: nothing is started."""


KIND = External()
