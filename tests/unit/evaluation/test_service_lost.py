"""A service that dies under load is lost, however the requests that it was answering noticed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.evaluation.load_session import raise_if_lost
from tune_gpu.services.running import KV_CACHE_PCT
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings

LOST = Failure(FailureKind.SERVICE_LOST, "vllm", Phase.LOAD, "killed")


@pytest.mark.parametrize("error", ["llm_connection", "stt_connection", "llm_truncated_stream"])
def test_a_cut_off_answer_waits_for_the_exit_that_is_reported_late(error: str) -> None:
    reported = chain([None, None], repeat(LOST))
    with pytest.raises(ServiceError) as raised:
        raise_if_lost(lambda: next(reported), [None, error])
    assert raised.value.failure == LOST


def test_an_answer_that_came_to_its_end_waits_for_no_exit() -> None:
    reported = iter([None, LOST])
    raise_if_lost(lambda: next(reported), [None, "llm_http_500", "llm_timeout"])
    assert next(reported) is LOST, "asked once"


HALF_AN_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nvllm:"
NO_HTTP = b"SSH-2.0-OpenSSH_9.6\r\n"


@pytest.fixture
def answered_with() -> Iterator[Callable[[bytes], VllmServer]]:
    """A server whose port answers one question with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(content: bytes) -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(content)

        def make(content: bytes) -> VllmServer:
            threading.Thread(target=answer, args=[content], daemon=True).start()
            return VllmServer(VllmSettings(), device="cpu", port_range=[1, 1], choose_port=lambda _range: listener.getsockname()[1])

        yield make


@pytest.mark.parametrize("content", [HALF_AN_ANSWER, NO_HTTP])
def test_an_engine_that_dies_amid_its_metrics_has_no_cache_use(answered_with: Callable[[bytes], VllmServer], content: bytes) -> None:
    assert answered_with(content).gauges() == {}


def test_the_fullest_cache_of_data_parallel_engines_counts(answered_with: Callable[[bytes], VllmServer]) -> None:
    lines = "".join(f'vllm:kv_cache_usage_perc{{engine="{engine}",model_name="m"}} {use}\n' for engine, use in enumerate((0.25, 0.75)))
    assert answered_with(f"HTTP/1.1 200 OK\r\nContent-Length: {len(lines)}\r\n\r\n{lines}".encode()).gauges() == {KV_CACHE_PCT: 75.0}


def test_a_port_that_speaks_no_http_is_the_wrong_server(answered_with: Callable[[bytes], VllmServer], monkeypatch: pytest.MonkeyPatch) -> None:
    server = answered_with(NO_HTTP)
    monkeypatch.setattr(server, "_launched", StillRunning())
    with pytest.raises(ServiceError) as raised:
        server._prove_identity()
    assert raised.value.failure.kind is FailureKind.WRONG_SERVER


class StillRunning:
    def exit_code(self) -> int | None:
        return None
