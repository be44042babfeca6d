"""Provide Ray for a command: a local Ray that ends with it, or a cluster that it joins."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import Interrupts, preserve_handler
from tune_gpu.common.process.guard import descendants
from tune_gpu.config.schema import ExperimentConfig, RaySettings
from tune_gpu.ray_tune.compat import WORKER_ENVIRONMENT, client_timed_out, loopback_only, read_token_anew, session_folder, wants_token
from tune_gpu.ray_tune.local import PrivateFolder, own_environment, parted, private_files
from tune_gpu.ray_tune.placement import check_cards, check_cores

_RAY_ENVIRONMENT = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a model's path may be relative to the user's current folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    **WORKER_ENVIRONMENT,
}

_HOW_TO_BE_LET_IN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN=… (`ray get-auth-token` on the cluster prints the token)"
PATIENCE_S = 30.0
"""Seconds to wait for a placement or a worker's start before printing a notice."""


@contextlib.contextmanager
def local_or_joined_ray(settings: RaySettings, n_cards: int | None = None) -> Iterator[None]:
    """Join the cluster of `ray.address`, or start a local Ray with `n_cards` that ends with the block. Raise UserError if none answers."""
    os.environ.update({key: os.environ.get(key, value) for key, value in _RAY_ENVIRONMENT.items()})
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with contextlib.ExitStack() as ending:
        if settings.address is None:
            os.environ.pop("RAY_ADDRESS", None)
            _start_local(ending, dict(settings.runtime_env), include_dashboard=settings.dashboard, num_gpus=n_cards, **options)
        else:
            _check_answers(settings)
            read_token_anew()
            given = dict(settings.runtime_env)
            variables = {name: os.environ[name] for name in WORKER_ENVIRONMENT} | dict(given.get("env_vars") or {})
            _join(str(settings.address), options | {"runtime_env": given | {"env_vars": variables}})
        ending.callback(_shut_down)
        yield


def _shut_down() -> None:
    """Shut Ray down, holding a second Ctrl-C. Ray would finish an interrupted shutdown at exit, when its folder no longer exists."""
    with Interrupts().held():
        ray.shutdown()


def _start_local(ending: contextlib.ExitStack, runtime_env: Mapping[str, Any] | None = None, **options: Any) -> None:
    """Start a local Ray. Its processes end with `ending`, and at once if the start is interrupted."""
    shown, hidden = parted(runtime_env or {})
    folder = PrivateFolder()
    ending.callback(folder.close)
    ending.enter_context(own_environment(folder.token, hidden))
    before = set(descendants(os.getpid()))
    try:
        with preserve_handler(signal.SIGTERM), loopback_only(), private_files():
            ray.init("local", dashboard_host="127.0.0.1", runtime_env=shown or None, **session_folder(folder.of_ray), **options)
    except BaseException:
        folder.end_with(_started_since(before))  # looked up while the servers exist, because their agents outlive them and are orphans then
        ray.shutdown()
        raise
    folder.end_with(_started_since(before))


def _started_since(before: set[int]) -> list[int]:
    return [pid for pid in descendants(os.getpid()) if pid not in before]


def _join(address: str, options: dict[str, Any]) -> None:
    """Join a cluster. Retry once if its client server was too slow (Ray waits half a minute). Raise UserError if that fails, too."""
    for attempts_left in (1, 0):
        try:
            with preserve_handler(signal.SIGTERM):
                ray.init(address=address, **options)
            return
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AuthenticationError) as error:
            if isinstance(error, ConnectionAbortedError) and attempts_left:
                continue
            raise UserError(f"ray.address={address}: {_why_not_joined(error)}") from error


def _why_not_joined(error: BaseException) -> str:
    """Return why Ray could not join, although its socket answers (see `_check_answers`)."""
    below: BaseException | None = error
    while below is not None:  # Ray reports the refusal in the cause of the error, not in the error itself
        if wants_token(below):
            return f"the cluster requires a token that this process does not have; {_HOW_TO_BE_LET_IN}"
        below = below.__cause__ or below.__context__
    if client_timed_out(error):
        return f"the server there accepts no Ray client: either this is not the port of Ray's client server (10001 by default), or it requires a token; {_HOW_TO_BE_LET_IN}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # A client's error contains the server's stack trace, whose last line is the cause.
    reason = lines[-1] if lines[0].endswith(":") else lines[0]
    return f"no Ray cluster answers there ({reason[:200]})"


def check_room_here(config: ExperimentConfig, kind: str) -> None:
    """Raise UserError for a candidate if no node of the running Ray has its cards and cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if kind == "cuda":
        check_cards(config, max(int(node.get("GPU", 0)) for node in nodes))
    check_cores(config, kind, nodes)


def waiting_notice() -> str:
    """Return the notice that trials are waiting. Ray does not show whether they wait for a placement or for the start of a process."""
    there, free = ray.cluster_resources(), ray.available_resources()
    left = ", ".join(f"{free.get(name, 0.0):g} of {there.get(name, 0.0):g} {what}" for name, what in (("GPU", "cards"), ("CPU", "cores")))
    return f"nothing has run for {PATIENCE_S:g} s: Ray has no free resources yet, or a process is still starting (free now: {left})"


def _check_answers(settings: RaySettings) -> None:
    """Raise UserError if nothing listens at the address. Ray itself would wait for minutes and print pages of errors."""
    address = str(settings.address)
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=settings.connect_timeout_s).close()
    except (OSError, ValueError) as error:
        raise UserError(f"ray.address={address}: nothing answers there ({error}). Set auto, host:port or ray://host:port.") from error
