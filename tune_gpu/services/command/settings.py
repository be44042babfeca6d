"""Settings of a service of kind `command`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import By, bounded, one_of, rule, ruled
from tune_gpu.config.texts import check_cores, check_variable
from tune_gpu.services.apis import APIS, NONE, VOICE
from tune_gpu.services.command.placeholders import problems

_PATH = re.compile(r"/[!-\"$-~]*", re.ASCII)
"""A path of a URL, maybe with a query; no blank and no fragment."""


def check_command(key: str, command: list[str]) -> None:
    """Raise UserError for a list that starts no program."""
    if not command or not command[0].strip():
        raise UserError(f"{key}: names no program. Set the program and its arguments as a list, such as [my-server, --port, \"{{port}}\"].")
    if any("\0" in word for word in command):
        raise UserError(f"{key}: has a null character, which no argument may have. Remove it.")


def check_path(key: str, path: str | None) -> None:
    """Raise UserError for text that is not the path of a URL."""
    if path is None:
        return
    if not path:
        raise UserError(f"{key}: missing. Set the path that answers with status 200 once the server is ready, such as /health.")
    if not _PATH.fullmatch(path):
        raise UserError(f"{key}={path}: not a path. Set one that begins with /, such as /health.")


@dataclass
class CommandSettings:
    """Any server that answers HTTP at `{host}` and `{port}`. Its own knobs are the entries of `settings`, which fill `{settings.NAME}`."""

    command: list[str] = field(default_factory=list, metadata=rule(By(check_command)))
    """Program and arguments. No shell reads them."""
    health: str = ruled("", By(check_path))
    """Path that answers with status 200 once the server is ready."""
    api: str = one_of(NONE, *APIS)
    """The API that requests use; `none` for a service that is deployed and never asked."""
    model: str = ""
    """Name of the model that a request carries."""
    ignore_eos: bool = True
    """An LLM's requests carry `ignore_eos`, so that each answer has the length asked for: vLLM, SGLang and llama.cpp's server know it. false for a
    server that does not (OpenAI's own rejects it, Ollama and TGI ignore it): requests then have OpenAI's fields alone, and answers may end
    earlier, which is counted and said."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its knobs, by name: texts, numbers and switches."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables of its processes, with the same placeholders; `{key}` stands for the API key, which only a variable may hold."""
    metrics: str | None = ruled(None, By(check_path))
    """Path of a Prometheus page, from which the use of a KV cache is read."""
    gpus: int = bounded(1, least=0)
    """Cards that it spans; 0 hides all cards from it."""
    reserves: bool = False
    """It claims its memory when it starts, so that it starts after the services whose memory grows."""
    memory_mib: float | None = bounded(None, above=0)
    """Memory that it takes on the device at most, for the memory check; null if that is not known."""
    cpu_cores: str | None = ruled(None, By(check_cores))
    """CPU only: the cores that it may use."""
    mps_active_thread_pct: float | None = bounded(None, above=0, most=100)
    """As vLLM's."""
    start_timeout_s: float = bounded(300.0, above=0)
    stop_grace_s: float = bounded(5.0, least=0)
    """Seconds between SIGTERM and SIGKILL."""

    @property
    def voice(self) -> str | None:
        """Return the voice that it is set to speak with, or None if its settings have none."""
        given = self.settings.get(VOICE)
        return None if given is None else str(given)

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield what is wrong with settings that depend on one another. Raise UserError for an invalid name of a variable."""
        for name, value in self.env.items():
            check_variable(f"{at}env", name)
            if "\0" in value:
                yield f"{at}env.{name}: has a null character, which no variable may have. Remove it."
        yield from problems(at, self.command, self.env, self.settings)
        if self.api != NONE and not self.model:
            yield f"{at}model: missing. Set the name of the model that a request of {self.api} carries."
        if not self.gpus and self.mps_active_thread_pct is not None:
            yield f"{at}mps_active_thread_pct: divides a card, and gpus=0 gives it none. Remove one of the two."

    def needs_trust(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that need the user's trust in a space or run of somebody else, and why."""
        yield "command", "it is a program that is started here"
        if self.env:
            yield "env", "variables can make a program run or fetch other code"
        if self.settings:
            yield "settings", "they become part of what is run"
