"""What must start after a service waits until that is ready."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.promote.test_apply import free_ports
from tune_gpu.promote import supervisor
from tune_gpu.services import readiness


@pytest.fixture
def says() -> Iterator[tuple[str, list[int]]]:
    """A server's address, and the codes that it answers with, the last one for ever."""
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/health", codes
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("answers", "ready"), [([200], True), ([401], True), ([503, 503, 200], True), ([503], False)])
def test_a_service_that_answers_is_ready_whatever_key_it_wants(says: tuple[str, list[int]], answers: list[int], ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    url, codes = says
    codes += answers
    monkeypatch.setattr(readiness, "_POLL_S", 0.01)
    assert readiness.wait_until_ready(url, 5.0 if ready else 0.1) is ready


def test_a_service_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINPID", str(2**22 + 1))  # above the kernel's largest
    assert readiness.main([f"http://127.0.0.1:{free_ports(1)[0]}/health", "600"]) == 1


LATE = "import http.server, sys, time; time.sleep(0.7); http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
LOOKS = "import pathlib, socket, sys; pathlib.Path(sys.argv[2]).write_text(str(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1])))))"


def test_shell_restart_starts_the_second_once_the_first_is_ready(tmp_path: Path) -> None:
    (port,), found = free_ports(1), tmp_path / "found"
    (tmp_path / "env").write_text("")
    for unit, code in (("whisper", LATE), ("vllm", LOOKS)):
        spec = {"command": [sys.executable, "-c", code, str(port), str(found)], "env_file": str(tmp_path / "env"), "cores": None}
        (tmp_path / f"{unit}.json").write_text(json.dumps(spec | {"ready": [f"http://127.0.0.1:{port}/", 20.0]}))
    try:
        supervisor.main([str(tmp_path), "restart", "whisper", "vllm"])
        for _ in range(200):
            if found.exists() and found.read_text():
                break
            threading.Event().wait(0.05)
        assert found.read_text() == "0", "it can connect"
    finally:
        supervisor.main([str(tmp_path), "stop", "whisper", "vllm"])
