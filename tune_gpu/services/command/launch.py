"""Make the arguments and the environment of a command, the same for a measured and a deployed one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.services.command.placeholders import HOST, KEY, PORT, SETTING, filled, names_in, word
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.services.environment import CARD_ORDER, layered

EVALUATION_ONLY = ("TMPDIR", "PYTHONUNBUFFERED")
"""Variables of a measured server that a deployed one does not have. They say where its files and its log are."""
HELD = (*EVALUATION_ONLY, "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Variables that settings cannot replace during a measurement. In a deployment the user's values count."""


def asks_for_key(settings: CommandSettings) -> bool:
    """Return whether the server gets an API key."""
    return any(KEY in names_in(value) for value in settings.env.values())


def arguments(name: str, settings: CommandSettings, host: str, port: int) -> list[str]:
    """Return the command with its placeholders filled and the whole path of its program.

    Raises:
        UserError: the program is not here, or cannot be executed.
    """
    program, *rest = (filled(text, _values(settings, host, port)) for text in settings.command)
    return [find_program(f"services.{name}.command", program, settings.env.get("PATH", os.environ.get("PATH", os.defpath))), *rest]


def command_environment(
    settings: CommandSettings, device: str, host: str, port: int, key: str | None = None, evaluation: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables that a server gets in addition to its host's.

    Args:
        settings: their `env` has precedence in a deployment, and during a measurement for all but `HELD`.
        device: `cuda` or `cpu`.
        host: address at which it listens.
        port: of that address.
        key: the API key; None leaves out the variables that hold it.
        evaluation: the variables of `EVALUATION_ONLY`; None for a deployment.
    """
    values = _values(settings, host, port) | ({} if key is None else {KEY: key})
    users = {name: filled(text, values) for name, text in settings.env.items() if key is not None or KEY not in names_in(text)}
    # A server that finds a card would use it, whatever the space says.
    place = CARD_ORDER if device == "cuda" and settings.gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return layered({}, place, users, evaluation)


def key_variables(settings: CommandSettings) -> tuple[str, ...]:
    """Return the names of the variables that hold the API key."""
    return tuple(sorted(name for name, text in settings.env.items() if KEY in names_in(text)))


def find_program(key: str, program: str, path: str) -> str:
    """Return the whole path of a program. The programs of this Python environment come first, as if it were activated.

    Args:
        key: the setting that names it, for the message.
        program: a name, or an absolute path.
        path: folders to search, as in PATH.

    Raises:
        UserError: it is not here, or cannot be executed.
    """
    if "/" not in program:
        if found := shutil.which(program, path=os.pathsep.join((str(Path(sys.executable).parent), path))):
            return os.path.abspath(found)
        split = " Each argument is an item of its own: no shell splits them." if " " in program else ""
        raise UserError(f"{key}: the program {program} is not in PATH. Install it, or set its whole path.{split}")
    if not os.path.isabs(program):
        raise UserError(f"{key}: {program} depends on the folder it is started in. Set its whole path, {Path(program).expanduser().resolve()}.")
    if not os.path.isfile(program):
        raise UserError(f"{key}: {program} {'is a folder' if os.path.isdir(program) else 'does not exist'}. Set the path of a program.")
    if not os.access(program, os.X_OK):
        raise UserError(f"{key}: {program} is not executable. Run chmod +x on it, or start it with its interpreter.")
    return program


def _values(settings: CommandSettings, host: str, port: int) -> dict[str, str]:
    own = {f"{SETTING}{name}": word(value) or "" for name, value in settings.settings.items()}
    return {HOST: host, PORT: str(port), **own}
