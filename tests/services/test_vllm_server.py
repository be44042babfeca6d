"""The real vLLM server: up, proven, and every way of not coming up with its own name."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.services.conftest import PORTS, toy
from tune_gpu.common.failures import FailureKind, Phase, ServiceError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.server import VllmServer


def server(host: ForkServer | None, **change: object) -> VllmServer:
    return VllmServer(toy(**change), device="cpu", port_range=PORTS, fork_server=host)


def failure_of(engine: VllmServer, abort: object = lambda: None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        engine.start(abort=abort)  # type: ignore[arg-type]
    assert engine.pids() == []
    assert caught.value.failure.service == "vllm"
    assert caught.value.failure.phase is Phase.START
    return caught.value


@pytest.mark.parametrize("warm", [True, False])
def test_it_says_what_cache_it_has_asks_for_its_key_and_leaves_nothing(host: ForkServer, warm: bool) -> None:
    engine = server(host if warm else None)
    info = engine.start()
    pids = engine.pids()
    assert len(pids) >= 3, "API server, engine core, worker"
    assert all(os.sched_getaffinity(pid) == {0} for pid in pids), "each is held to the candidate's cores"
    assert info.kv_cache_tokens is not None
    assert info.kv_cache_tokens >= 1024
    assert info.kv_cache_tokens == (info.kv_cache_blocks or 0) * (info.block_size or 0)
    assert info.max_concurrency == pytest.approx(info.kv_cache_tokens / 1024, rel=0.01)
    assert engine.failure() is None
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(engine.base_url + "/v1/models", timeout=10)
    engine.stop()
    assert all(start_ticks(pid) is None for pid in pids)


def test_a_share_too_small_for_the_cache(host: ForkServer) -> None:
    failure = failure_of(server(host, gpu_memory_utilization=0.01)).failure
    assert failure.kind is FailureKind.STARTUP_NO_KV_MEMORY
    assert "less than requested memory for kv" in failure.evidence
    assert failure.shortfall > 0
    assert not failure.retryable


def test_an_engine_that_cannot_load_the_model_says_why(host: ForkServer) -> None:
    failure = failure_of(server(host, load_format="safetensors")).failure
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "Cannot find any model weights" in failure.evidence, "not that the cause stands above"


def test_a_share_above_what_is_free(host: ForkServer) -> None:
    failure = failure_of(server(host, gpu_memory_utilization=1.0)).failure
    assert failure.kind is FailureKind.STARTUP_OOM
    assert "is less than desired CPU memory utilization" in failure.evidence
    assert failure.shortfall > 0


def test_a_flag_that_vllm_does_not_take(host: ForkServer) -> None:
    failure = failure_of(server(host, extra_args={"no-such-flag": "1"})).failure
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "no-such-flag" in failure.evidence


def test_a_server_that_is_killed_while_it_starts(host: ForkServer) -> None:
    engine = server(host)

    def kill() -> None:
        for pid in engine.pids():
            os.kill(pid, signal.SIGKILL)

    failure = failure_of(engine, kill).failure
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "signal 9" in failure.message


def test_a_server_that_never_becomes_ready(host: ForkServer) -> None:
    engine = server(host, start_timeout_s=2.0)

    def freeze() -> None:
        for pid in engine.pids():
            os.kill(pid, signal.SIGSTOP)

    failure = failure_of(engine, freeze).failure
    assert failure.kind is FailureKind.STARTUP_TIMEOUT
    assert failure.retryable


def test_a_port_that_was_taken_between_choice_and_use(host: ForkServer) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        engine = VllmServer(toy(), device="cpu", port_range=PORTS, fork_server=host, choose_port=lambda _range: int(thief.getsockname()[1]))
        failure = failure_of(engine).failure
    assert failure.kind is FailureKind.PORT_CONFLICT
    assert failure.retryable


@pytest.fixture
def stranger() -> Iterator[int]:
    """Somebody else's healthy OpenAI server; the port it is on."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": "somebody-elses-model"}]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as there:
        thread = threading.Thread(target=there.serve_forever)
        thread.start()
        yield there.server_address[1]
        there.shutdown()
        thread.join()


def test_a_stale_server_on_the_port_is_never_measured(host: ForkServer, stranger: int) -> None:
    engine = VllmServer(toy(), device="cpu", port_range=PORTS, fork_server=host, choose_port=lambda _range: stranger)
    assert failure_of(engine).failure.kind in (FailureKind.WRONG_SERVER, FailureKind.PORT_CONFLICT)


def test_the_death_of_the_engine_is_noticed(host: ForkServer) -> None:
    engine = server(host)
    engine.start()
    for pid in engine.pids():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (failure := engine.failure()) is None:
        assert time.monotonic() < deadline
    assert failure.kind is FailureKind.SERVICE_LOST
    assert failure.phase is Phase.LOAD
    engine.stop()
