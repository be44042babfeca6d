"""A kind of service for tests, and the example of one: `fake` answers chats as late as its setting says.

A package that has a kind names it as an entry point:

    [project.entry-points."tune_gpu.services"]
    fake = "tune_gpu.testing.fake_kind:KIND"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tune_gpu.config.rules import By, bounded, ruled
from tune_gpu.config.texts import check_cores
from tune_gpu.services.command.kind import Command
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.testing.fake_server import MODEL

_SERVER = Path(__file__).with_name("fake_server.py")


@dataclass
class FakeSettings:
    """How the server answers."""

    latency_ms: float = bounded(1.0, least=0)
    """Milliseconds between the words of an answer."""
    cpu_cores: str | None = ruled(None, By(check_cores))
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = bounded(30.0, above=0)


class FakeKind(Command):
    """A small server that is started by a command. It uses no card."""

    name = "fake"
    Settings = FakeSettings
    card_settings = ()

    def as_command(self, settings: FakeSettings) -> CommandSettings:
        """Return the command that starts the server with these settings."""
        return CommandSettings(
            command=[sys.executable, "-P", str(_SERVER), "{port}", "{settings.latency_ms}"],
            health="/health",
            api="openai-chat",
            model=MODEL,
            settings={"latency_ms": settings.latency_ms},
            env={**settings.env, "FAKE_API_KEY": "{key}"},
            gpus=0,
            cpu_cores=settings.cpu_cores,
            start_timeout_s=settings.start_timeout_s,
            stop_grace_s=1.0,
        )


KIND = FakeKind()
