"""Joining a Ray cluster that is slow, or that is not there."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.ray_tune.session import _join, _start_local

_SLOW = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.
"""


def init_that_fails(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[str]:
    """Ray's `init` raises these one after the other, then joins; answers with the addresses it is asked for."""
    asked: list[str] = []
    left = list(errors)

    def init(address: str, **_options: Any) -> None:
        asked.append(address)
        if left:
            raise left.pop(0)

    monkeypatch.setattr(ray, "init", init)
    return asked


def test_a_client_server_that_came_up_too_slowly_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = init_that_fails(monkeypatch, ConnectionAbortedError(_SLOW))
    _join("ray://127.0.0.1:1", {})
    assert len(asked) == 2


def test_one_that_fails_again_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    init_that_fails(monkeypatch, ConnectionAbortedError(_SLOW), ConnectionAbortedError(_SLOW))
    with pytest.raises(UserError, match=r"ray.address=ray://127.0.0.1:1: no Ray cluster answers there \(RuntimeError: Starting Ray client server failed"):
        _join("ray://127.0.0.1:1", {})


def test_an_address_where_nobody_is_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = init_that_fails(monkeypatch, ConnectionError("Could not find any running Ray instance."))
    with pytest.raises(UserError, match=r"\(Could not find any running Ray instance\.\)"):
        _join("auto", {})
    assert len(asked) == 1


def refused_by_the_server() -> ConnectionError:
    """As Ray raises it: what it says itself names no cause."""
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = RuntimeError("Failed to connect to GCS. Last connection error: … RPC error: InvalidAuthToken: Authentication token is missing or incorrect.")
    return error


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (refused_by_the_server(), "the cluster requires a token that this process does not have; .*RAY_AUTH_TOKEN"),
        (AuthenticationError("no authentication token was found"), "the cluster requires a token that this process does not have; .*RAY_AUTH_TOKEN"),
        (ConnectionError("ray client connection timeout"), r"accepts no Ray client: either this is not the port .*\(10001 by default\), or it requires a token; .*RAY_AUTH_TOKEN"),
    ],
    ids=["wrong or missing", "none to send", "a client is told nothing"],
)
def test_a_token_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception, named: str) -> None:
    init_that_fails(monkeypatch, error)
    with pytest.raises(UserError, match=rf"ray\.address=there:1: .*{named}"):
        _join("there:1", {})


@pytest.mark.parametrize("interrupted", [KeyboardInterrupt(), SystemExit(15)], ids=["Ctrl-C", "Ray's own handler of SIGTERM"])
def test_what_an_interrupted_start_of_ray_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, interrupted: BaseException) -> None:
    started: list[int] = []

    def init(*_: Any, **__: Any) -> None:
        server = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
        assert server.stdout is not None
        started.extend((server.pid, int(server.stdout.readline())))
        raise interrupted

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as ending:
        _start_local(ending)
    assert len(started) == 2
    deadline = time.monotonic() + 5
    while (alive := [pid for pid in started if start_ticks(pid) is not None]) and time.monotonic() < deadline:
        time.sleep(0.02)  # they have got SIGKILL
    assert alive == []
