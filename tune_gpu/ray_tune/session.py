"""Ray for the time of a command: a local one that ends with it, or a cluster that is joined."""

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
from tune_gpu.common.interrupt import Interrupts, handler_kept
from tune_gpu.common.process.guard import descendants
from tune_gpu.config.schema import ExperimentConfig, RaySettings
from tune_gpu.ray_tune.compat import WORKER_ENVIRONMENT, client_timed_out, loopback_only, read_token_anew, session_folder, wants_token
from tune_gpu.ray_tune.local import PrivateFolder, own_environment, parted, private_files
from tune_gpu.ray_tune.placement import check_cards, check_cores

_RAY_ENVIRONMENT = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a model's path may be relative to where the user stands
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    **WORKER_ENVIRONMENT,
}

_HOW_TO_BE_LET_IN = "give it as RAY_AUTH_MODE=token and RAY_AUTH_TOKEN=… (`ray get-auth-token` prints it there)"
PATIENCE_S = 30.0
"""For so long a place, or a start in it, is waited for without a word."""


@contextlib.contextmanager
def local_or_joined_ray(settings: RaySettings, n_cards: int | None = None) -> Iterator[None]:
    """Join the cluster of `ray.address`, or start a local Ray that ends with the block, with so many cards. Raises UserError if none answers."""
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
    """Leave Ray; a second Ctrl-C waits, because what is left half shut down Ray goes on with at exit, when its folder is gone."""
    with Interrupts().held():
        ray.shutdown()


def _start_local(ending: contextlib.ExitStack, runtime_env: Mapping[str, Any] | None = None, **options: Any) -> None:
    """Start a Ray of our own; all that it starts ends at the `ending`, and at once where its start is interrupted."""
    shown, hidden = parted(runtime_env or {})
    folder = PrivateFolder()
    ending.callback(folder.close)
    ending.enter_context(own_environment(folder.token, hidden))
    before = set(descendants(os.getpid()))
    try:
        with handler_kept(signal.SIGTERM), loopback_only(), private_files():
            ray.init("local", dashboard_host="127.0.0.1", runtime_env=shown or None, **session_folder(folder.of_ray), **options)
    except BaseException:
        folder.end_with(_started_since(before))  # asked while their parents are there: Ray's agents outlive its servers, and have no parent then
        ray.shutdown()
        raise
    folder.end_with(_started_since(before))


def _started_since(before: set[int]) -> list[int]:
    return [pid for pid in descendants(os.getpid()) if pid not in before]


def _join(address: str, options: dict[str, Any]) -> None:
    """Join a cluster; once more where its client server came up too slowly (Ray gives it half a minute). Raises UserError if that fails too."""
    for attempts_left in (1, 0):
        try:
            with handler_kept(signal.SIGTERM):
                ray.init(address=address, **options)
            return
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AuthenticationError) as error:
            if isinstance(error, ConnectionAbortedError) and attempts_left:
                continue
            raise UserError(f"ray.address={address}: {_why_not_joined(error)}") from error


def _why_not_joined(error: BaseException) -> str:
    """Of a socket that answers (see `_check_answers`)."""
    below: BaseException | None = error
    while below is not None:  # Ray names the refusal in what the error comes from, and not in the error
        if wants_token(below):
            return f"the cluster asks for a token that this process does not have; {_HOW_TO_BE_LET_IN}"
        below = below.__cause__ or below.__context__
    if client_timed_out(error):
        return f"what listens there lets no Ray client in: either it is not the port of the client's server (10001 by default), or it asks for a token; {_HOW_TO_BE_LET_IN}"
    said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # A client's error is the server's stack: what went wrong is its last line.
    reason = said[-1] if said[0].endswith(":") else said[0]
    return f"no Ray cluster answers there ({reason[:200]})"


def check_room_here(config: ExperimentConfig, kind: str) -> None:
    """Raises UserError for a candidate that no node of the Ray that is up has the cards and the cores for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if kind == "cuda":
        check_cards(config, max(int(node.get("GPU", 0)) for node in nodes))
    check_cores(config, kind, nodes)


def waiting_said() -> str:
    """For people who wait: what is measured must first get its place, and its process must start there, which Ray does not tell apart."""
    there, free = ray.cluster_resources(), ray.available_resources()
    left = ", ".join(f"{free.get(name, 0.0):g} of {there.get(name, 0.0):g} {what}" for name, what in (("GPU", "cards"), ("CPU", "cores")))
    return f"nothing has run for {PATIENCE_S:g} s: Ray has no place for it yet, or its process is still starting (free now: {left})"


def _check_answers(settings: RaySettings) -> None:
    """Ray waits for minutes and prints pages for an address that nobody listens at; a socket tells in a moment."""
    address = str(settings.address)
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=settings.connect_timeout_s).close()
    except (OSError, ValueError) as error:
        raise UserError(f"ray.address={address}: nothing answers there ({error}); allowed: auto, host:port, ray://host:port") from error
