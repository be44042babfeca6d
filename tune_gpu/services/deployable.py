"""What a service is outside of this program: the arguments and the environment with which it is deployed as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Deployable:
    """One service that runs by itself."""

    command: tuple[str, ...]
    """Program, with the arguments that make it this server, such as a module's name. `promote` may be given another one."""
    env: Mapping[str, str]
    """Variables in addition to its host's, without those that hold a secret."""
    health: str
    """Path that answers once it is ready."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Flags by their long names, for a program that reads them from a YAML file (`--config`); empty for one that reads none."""
    key_variables: tuple[str, ...] = ()
    """Variables that must hold its API key; none for a server that asks for no key."""
    words: tuple[str, ...] = ()
    """Arguments after the command, for a program that reads no file."""
    model: str = ""
    """Name of its model, as a request carries it."""
    ignore_eos: bool = True
    """As of its endpoint in a measurement (`Endpoint`)."""
    voice: str | None = None
    """The voice that a request for speech names; None for none."""

    def arguments(self) -> list[str]:
        """Return the whole command line, with the flags in `config` written out."""
        flags: list[str] = []
        for name, value in self.config.items():
            if value is not False:
                flags += [f"--{name}", *([] if value is True else map(str, value if isinstance(value, list) else [value]))]
        return [*self.command, *self.words, *flags]
