"""The client for checks and probes: the key reaches the service alone, and no server holds a check or fills the memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.places import Place
from tune_gpu.promote.watch import Watcher
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.services.readiness import answers
from tune_gpu.services.running import Endpoint
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.workload.clients.call import Audio, Call
from tune_gpu.workload.clients.completion import complete
from tune_gpu.workload.clients.transcription import transcribe
from tune_gpu.workload.window import client_session

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Raw:
    """A server that records what it receives and sends bytes as it likes."""

    def __init__(self, send: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.received: list[bytes] = []
        self._send = send
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self.received.append(connection.recv(65536))
                    self._send(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def serving(send: bytes | Callable[[socket.socket], None]) -> Iterator[Raw]:
    server = Raw((lambda connection: connection.sendall(send)) if isinstance(send, bytes) else send)
    try:
        yield server
    finally:
        server.close()


def drip(connection: socket.socket) -> None:
    """A header that never ends, a byte at a time; each arrives well within any time-out of a single read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.01)


def test_an_answer_comes_with_its_status_and_the_key_is_sent() -> None:
    with serving(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno") as server:
        assert get(f"{server.url}/v1/models", "mind") == (401, b"no")
        assert b"GET /v1/models HTTP/1.1" in server.received[0]
        assert b"Authorization: Bearer mind\r\n" in server.received[0]
        get(server.url)
        assert b"Authorization" not in server.received[1]


def test_a_key_does_not_reach_a_proxy_from_any_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OK) as trap, serving(OK) as service:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, trap.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("KEY", "mind")
        assert Watcher(PromoteSettings()).is_healthy(Place("vllm", "unit", service.url, "KEY"))
        assert answers(service.url)
        there: dict[str, Any] = {"device": "cpu", "port_range": [1, 2], "choose_port": lambda _: service.port}
        for measured in (VllmServer(VllmSettings(), **there), WhisperService(WhisperSettings(), **there)):
            try:
                assert measured.healthy(10.0)
            finally:
                measured.stop()
        assert not trap.received
        assert len(service.received) == 4


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with serving(OK) as other, serving(b"HTTP/1.1 302 Found\r\nLocation: " + other.url.encode() + b"/\r\nContent-Length: 0\r\n\r\n") as server:
        assert get(server.url, "mind")[0] == 302
        assert not answers(server.url)
        assert not other.received


@pytest.mark.parametrize("ask", ["transcribe", "complete"])
def test_a_live_turn_follows_no_redirect(ask: str) -> None:
    """What is said in it goes to the service alone."""

    async def turn(url: str) -> str | None:
        async with client_session() as session:
            call = Call(session, Endpoint(url, "key", "model"), time.monotonic(), 10.0, max_tokens=1)
            return (await complete(call, "hello") if ask == "complete" else await transcribe(call, Audio(b"", 1.0))).error

    def lead_away(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 307 Elsewhere\r\nLocation: " + other.url.encode() + b"/\r\nContent-Length: 0\r\n\r\n")
        while connection.recv(65536):  # the rest of the recording
            pass

    with serving(OK) as other, serving(lead_away) as server:
        assert asyncio.run(turn(server.url)) == "http_307"
        assert not other.received


def test_a_server_that_drips_bytes_is_given_up_at_the_deadline() -> None:
    with serving(drip) as server, pytest.raises(NoAnswer, match=r"no whole answer within 0\.2 s"):
        get(server.url, deadline_s=0.2)


def test_neither_a_check_nor_a_live_turn_reads_a_body_of_a_gigabyte() -> None:
    sent: list[int] = []

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        for megabyte in range(1024):
            connection.sendall(bytes(2**20))
            sent.append(megabyte)

    async def turn(url: str) -> str | None:
        async with client_session() as session:
            return (await transcribe(Call(session, Endpoint(url, ""), time.monotonic(), 60.0), Audio(b"", 1.0))).error

    with serving(flood) as server:
        with pytest.raises(NoAnswer, match="longer than 1000 bytes"):
            get(server.url, max_bytes=1000)
        assert asyncio.run(turn(server.url)) == "bad_payload"
    assert len(sent) < 100


def test_an_answer_that_is_cut_off_is_none() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as server, pytest.raises(NoAnswer, match="5 bytes too early"):
        get(server.url)


@pytest.mark.parametrize("key", ["line\nbreak", "carriage\rreturn", "nul\0"])
def test_a_key_that_no_header_may_have_is_not_quoted(key: str) -> None:
    with serving(OK) as server, pytest.raises(NoAnswer) as raised:
        get(server.url, key)
    assert key not in str(raised.value)
    assert repr(key)[1:-1] not in str(raised.value)


def test_a_key_beyond_ascii_travels_as_utf_8() -> None:
    with serving(OK) as server:
        get(server.url, "schlüssel")
        assert "Bearer schlüssel\r\n".encode() in server.received[0]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "http://[::1/", "http://127.0.0.1:1/"])
def test_what_is_no_address_or_not_there_is_no_answer(url: str) -> None:
    with pytest.raises(NoAnswer):
        get(url, deadline_s=2.0)


@given(answer=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)))
def test_whatever_bytes_a_port_sends_they_raise_nothing_else(answer: bytes) -> None:
    with serving(answer) as server:
        try:
            status, body = get(server.url, deadline_s=5.0)
        except NoAnswer:
            return
        assert isinstance(status, int)
        assert isinstance(body, bytes)
