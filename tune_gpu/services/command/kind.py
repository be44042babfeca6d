"""The kind `command`: any server that an argument list starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tune_gpu.artifacts.redaction import secret_values
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.common.process.cores import parse_cores
from tune_gpu.config import rules
from tune_gpu.config.run_settings import RunSettings
from tune_gpu.config.texts import check_variable
from tune_gpu.services.apis import APIS
from tune_gpu.services.base import Gpus, LaunchSite, fingerprint
from tune_gpu.services.command.launch import HELD, arguments, command_environment, key_variables
from tune_gpu.services.command.placeholders import word
from tune_gpu.services.command.server import CommandServer
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.services.deployable import Deployable
from tune_gpu.services.findings import DoctorFinding, Machine, ok
from tune_gpu.services.memory_values import DeviceMemory, Footprint


class Command:
    """A server of the user's own, kept while none of its settings changes.

    A kind for one certain server may derive from this one: it has settings of its own, and says in `as_command` which command they mean
    (`tune_gpu/testing/fake_kind.py` is an example).
    """

    name = "command"
    Settings: type = CommandSettings
    held = HELD
    card_settings: tuple[str, ...] = ("gpus",)

    def as_command(self, settings: Any) -> CommandSettings:
        """Return the command that the settings mean."""
        return settings

    def protocol(self, settings: Any) -> Protocol | None:
        """Return the protocol of its API, or None if it is never asked."""
        return APIS[self.as_command(settings).api]

    def reserves(self, settings: Any) -> bool:
        """Return whether the settings say that it claims its memory when it starts."""
        return self.as_command(settings).reserves

    def reuse_key(self, settings: Any) -> str:
        """Return a text that is equal for equal settings."""
        return fingerprint(asdict(settings))

    def gpus(self, settings: Any) -> Gpus:
        """Return its cards. How much of them it takes is known to itself alone."""
        cards = self.as_command(settings).gpus
        return Gpus(cards, None, (f"gpus={cards}",))

    def footprint(self, settings: Any, device: DeviceMemory) -> Footprint | None:
        """Return what the settings say that it takes, nothing for one without a card, or None if nobody knows."""
        command = self.as_command(settings)
        if device.kind == "cuda" and not command.gpus:
            return Footprint(0.0)
        return None if command.memory_mib is None else Footprint(command.memory_mib)

    def memory(self, _store: Any, _version: str | None, *, warm: bool) -> None:
        """Return None: what it reserves is what its settings say."""

    def missing(self, _device: str) -> None:
        """Return None: `check` looks for its program."""

    def examine(self, _machine: Machine) -> Iterator[DoctorFinding]:
        """Yield nothing: what it needs is each service's own."""
        yield from ()

    def examine_service(self, name: str, settings: Any) -> Iterator[DoctorFinding]:
        """Yield where its program is. Raise UserError if it is not here."""
        program, *_ = arguments(name, self.as_command(settings), "127.0.0.1", 1)
        yield ok(name, f"starts {program}")

    def check_entry(self, key: str, setting: str, entry: str, value: Any) -> None:
        """Raise UserError for a value that cannot fill a placeholder, or a variable that cannot be set."""
        if setting == "settings" and word(value) is None:
            raise UserError(f"{key}={'null' if value is None else value}: cannot fill a placeholder. Set a text, a number, true or false.")
        if setting == "env":
            check_variable(key.removesuffix(f".{entry}"), entry)

    def check(self, name: str, settings: Any, *, local: bool) -> None:
        """Raise UserError for settings that contradict their rules, for a secret on the command line, and for a program that is not here."""
        at = f"services.{name}."
        rules.check(settings, at)
        command = self.as_command(settings)
        rules.check(command, at)
        for key, shown in (("command", command.command), ("settings", command.settings)):
            if any(secret_values(shown)):
                raise UserError(f"{at}{key}: a secret, and every user can read a command line. Put it into a variable of the environment.")
        if not local:
            return
        arguments(name, command, "127.0.0.1", 1)
        here = sorted(os.sched_getaffinity(0))
        if missing := sorted(set(parse_cores(command.cpu_cores) or []) - set(here)):
            raise UserError(f"{at}cpu_cores={command.cpu_cores}: this machine has no core {', '.join(map(str, missing))}. Set cores of {here[0]}-{here[-1]}.")

    def launch(self, name: str, settings: Any, site: LaunchSite) -> CommandServer:
        """Return the server, not yet started."""
        return CommandServer(name, self.as_command(settings), device=site.device, port_range=site.port_range)

    def host(self, _run: RunSettings, _device: str) -> None:
        """Return None: its servers share nothing."""

    def deployable(self, name: str, settings: Any, device: str, *, host: str, port: int, model: str = "") -> Deployable:  # noqa: ARG002 - the command names its model
        """Return the server as it runs by itself at this address. Raise UserError if its program is not here."""
        command = self.as_command(settings)
        env = command_environment(command, device, host, port)
        program, *words = arguments(name, command, host, port)
        return Deployable(
            (program,), env, command.health, key_variables=key_variables(command), words=tuple(words), model=command.model,
            ignore_eos=command.ignore_eos, voice=command.voice,
        )  # fmt: skip


KIND = Command()
