"""Start a local Ray that only its user can reach and that leaves nothing behind.

Ray makes its session's folders accessible to everybody, so they are placed in a folder that only the user can open. That folder also has
the token of this Ray.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.redaction import holds_secret
from tune_gpu.common.errors import UserError
from tune_gpu.common.process import reaper
from tune_gpu.ray_tune.compat import read_token_anew

_OWN_END_S = 5.0
_LONGEST_FOLDER = 38
"""Longest path of the folder: a socket's path may have 107 bytes, and `/ray/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store` takes
up to 68 of them."""
_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class PrivateFolder:
    """A new folder that only this user may read, with a token for one Ray. A reaper removes it when this process ends, however it ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tg-ray-", dir=_parent()))
        command = [sys.executable, "-S", reaper.__file__, str(_OWN_END_S), str(self.path)]
        self._reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self.of_ray = self.path / "ray"
        """Folder for Ray, which makes its folder accessible to everybody."""
        self.token = self.path / "token"
        with os.fdopen(os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))

    def end_with(self, started: Iterable[int]) -> None:
        """Make these processes (of a local Ray) end with this one, even if it is killed.

        If this process is killed, the kernel ends Ray's servers but not their agents, which try for up to a minute to report to an ended
        server.
        """
        named = "".join(f"{pid}:{ticks}\n" for pid in started if (ticks := reaper.start_ticks(pid)) is not None)
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(named.encode())
        self._reaper.stdin.flush()

    def close(self) -> None:
        """End the processes now, and remove the folder."""
        self._reaper.communicate(b"end")


def _parent() -> str:
    """Return the parent of a private folder: the temporary folder, or another one if the sockets' paths would be too long there."""
    for parent in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108 - what is made there is private
        if parent and len(os.fsencode(parent)) + len("/tg-ray-12345678") <= _LONGEST_FOLDER and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise UserError(f"TMPDIR={tempfile.gettempdir()}: too long for Ray's sockets. Set TMPDIR to a folder of at most {_LONGEST_FOLDER - len('/tg-ray-12345678')} characters.")


@contextlib.contextmanager
def own_environment(token: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables and Ray's token within the block, for this process and its children.

    A local Ray passes its environment on to its workers. A `runtime_env` would do so, too, but Ray writes it to its logs.
    """
    before = {name: os.environ.get(name) for name in (*variables, *_TOKEN)}
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.update({**variables, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    read_token_anew()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Make new files readable by this user only within the block, also those of processes started in it."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def parted(runtime_env: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a runtime environment without the variables that hold secrets, and those variables."""
    given = dict(runtime_env.get("env_vars") or {})
    hidden = {name: str(value) for name, value in given.items() if holds_secret(name, value)}
    shown = {name: value for name, value in given.items() if name not in hidden}
    return {**runtime_env, **({"env_vars": shown} if given else {})}, hidden
