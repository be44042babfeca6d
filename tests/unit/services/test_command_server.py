"""A command's server: it is proven to be the one that was started, it fails in one clear line, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.ports import free_port
from tune_gpu.config import rules
from tune_gpu.services.command import server as command_server
from tune_gpu.services.command.listeners import listening, owners, reachable, shown
from tune_gpu.services.command.server import CommandServer
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.services.running import KV_CACHE_PCT
from tune_gpu.testing.leavings import watched

PORTS = [20000, 29999]
SERVER = """
import http.server, socket, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({"/health": 200, "/metrics": 200, "/loading": 503}.get(self.path, 404))
        self.end_headers()
        self.wfile.write(b"vllm:kv_cache_usage_perc 0.25\\n" if self.path == "/metrics" else b"ok")
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    server_bind = socketserver.TCPServer.server_bind
def serve(port, host="127.0.0.1"):
    Server((host, int(port)), Handler).serve_forever()
"""


def script(code: str, *words: str, **change: Any) -> CommandSettings:
    """A command that runs this code of Python, with the words as its arguments."""
    text = textwrap.dedent(code).replace("{", "{{").replace("}", "}}")
    values = {"health": "/health", "start_timeout_s": 30.0, "stop_grace_s": 0.5, **change}
    settings = CommandSettings(command=[sys.executable, "-S", "-c", text, *(words or ("{port}",))], **values)
    rules.check(settings, "services.tts.")
    return settings


def serving(tail: str = "serve(sys.argv[1])", *words: str, **change: Any) -> CommandSettings:
    return script(f"{SERVER}\n{textwrap.dedent(tail)}", *words, **change)


@contextlib.contextmanager
def launched(settings: CommandSettings, port: int | None = None) -> Iterator[CommandServer]:
    """The server, which is ended after the block and has left nothing then. A port that is given is somebody else's, too."""
    with watched() as leavings:
        server = CommandServer("tts", settings, device="cpu", port_range=PORTS if port is None else [port, port])
        try:
            yield server
            leavings.see(server)
        finally:
            server.stop()
        assert [each for each in leavings.left() if each != f"port {port}"] == []


def failed(settings: CommandSettings, abort: Callable[[], str | None] = lambda: None, port: int | None = None) -> Failure:
    """Why it does not start."""
    with launched(settings, port=port) as server, pytest.raises(ServiceError) as raised:
        server.start(abort)
    failure = raised.value.failure
    assert (failure.service, failure.phase) == ("tts", Phase.START)
    assert "\n" not in failure.message + failure.evidence
    return failure


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def somebody_else(port: int, *, share: bool = False) -> Iterator[Callable[[], None]]:
    """A call that lets this test's own process answer on the port; called again it does nothing."""
    opened: list[tuple[HTTPServer, threading.Thread]] = []

    def answer() -> None:
        if opened:
            return
        server = HTTPServer(("127.0.0.1", port), Answering, bind_and_activate=False)
        if share:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.server_bind()
        server.server_activate()
        opened.append((server, threading.Thread(target=server.serve_forever, args=(0.01,))))
        opened[0][1].start()

    try:
        yield answer
    finally:
        for server, thread in opened:
            server.shutdown()
            server.server_close()
            thread.join()


def test_a_started_server_reports_itself_and_leaves_nothing() -> None:
    with launched(serving(metrics="/metrics", cpu_cores="0", env={"A": "{host}:{port}"})) as server:
        info = server.start()
        assert (info.program, info.device) == (sys.executable, "cpu")
        assert server.start_s == info.start_s > 0
        assert server.healthy(5.0)
        assert server.failure() is None
        assert server.gauges() == {KV_CACHE_PCT: 25.0}
        assert server.endpoint.key == ""
        (pid,) = server.pids()
        assert os.sched_getaffinity(pid) == {0}
        environment = psutil.Process(pid).environ()
        assert environment["A"] == f"127.0.0.1:{server.port}"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        os.kill(pid, signal.SIGKILL)
        server._process._guard.wait(20)  # type: ignore[union-attr]
        failure = server.failure()
        assert failure is not None
        assert (failure.kind, failure.service, failure.phase) == (FailureKind.SERVICE_LOST, "tts", Phase.LOAD)
        assert not server.healthy(1.0)
        assert server.gauges() == {}


def test_a_program_that_ends_is_explained_by_its_last_line() -> None:
    failure = failed(script("import sys; print('reading voices'); print('no voice named heart'); sys.exit(3)", "{port}"))
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "ended with exit code 3" in failure.message
    assert failure.evidence == "no voice named heart"


def test_a_program_that_becomes_a_daemon_is_told_to_stay() -> None:
    code = "import os, sys, time\nif os.fork() == 0:\n    os.setsid(); print('a daemon now', flush=True); time.sleep(600)\n"
    assert "must stay in the foreground" in failed(script(code, "{port}")).message


def test_a_program_that_vanished_after_the_check_fails_in_one_line(tmp_path: Path) -> None:
    failure = failed(CommandSettings(command=[f"{tmp_path}/gone", "{port}"], health="/health"))
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert failure.message == f"services.tts.command: {tmp_path}/gone does not exist. Set the path of a program."


def test_a_command_that_ignores_its_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_server, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(command_server, "_ELSEWHERE_S", 0.1)
    other = free_port(PORTS)
    failure = failed(serving("serve(sys.argv[2])", "{port}", str(other)))
    assert failure.kind is FailureKind.WRONG_SERVER
    assert f"it ignores {{port}}: it is ready on 127.0.0.1:{other}, and nothing listens on port" in failure.message


def test_a_second_port_that_is_ready_first_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port for metrics may be up long before the model is loaded, as long as the server opens its own in time."""
    monkeypatch.setattr(command_server, "_LOOK_EVERY_S", 0.01)
    tail = """
        import threading, time
        threading.Thread(target=serve, args=(sys.argv[2],), daemon=True).start()
        time.sleep(0.5)
        serve(sys.argv[1])
    """
    with launched(serving(tail, "{port}", str(free_port(PORTS)))) as server:
        server.start()


def test_a_server_that_is_never_ready_says_what_it_answers() -> None:
    loading = failed(serving(health="/loading", start_timeout_s=1.0))
    assert loading.kind is FailureKind.STARTUP_TIMEOUT
    assert "not ready 1 s after its start: /loading answers with status 503. It listens on 127.0.0.1:" in loading.message
    assert "/nowhere answers with status 404" in failed(serving(health="/nowhere", start_timeout_s=1.0)).message
    silent = failed(script("import time; print('loading', flush=True); time.sleep(600)", "{port}", start_timeout_s=0.5))
    assert silent.message.endswith("It listens on no port.")
    assert "Connection refused" in silent.message
    assert silent.evidence == "loading"


def test_a_server_at_another_address_is_said_to_be_there() -> None:
    failure = failed(serving("serve(sys.argv[1], '127.0.0.2')", start_timeout_s=1.0))
    assert "It listens on 127.0.0.2:" in failure.message


def test_a_port_that_was_taken_meanwhile_is_a_conflict() -> None:
    port = free_port(PORTS)
    with launched(serving(), port=port) as server, somebody_else(port) as answer:
        answer()
        with pytest.raises(ServiceError, match=f"another process took port {port}") as raised:
            server.start()
        assert raised.value.failure.kind is FailureKind.PORT_CONFLICT
        assert server.pids() == []


def test_a_server_whose_port_is_in_use_reports_a_conflict() -> None:
    failure = failed(serving("one = Server(('127.0.0.1', int(sys.argv[1])), Handler)\nserve(sys.argv[1])"))
    assert failure.kind is FailureKind.PORT_CONFLICT
    assert failure.retryable
    assert "Address already in use" in failure.evidence


def test_an_answer_from_outside_its_processes_is_refused() -> None:
    port = free_port(PORTS)
    with somebody_else(port) as answer:
        failure = failed(script("import time; time.sleep(600)", "{port}"), abort=answer, port=port)
    assert failure.kind is FailureKind.WRONG_SERVER
    assert f"process {os.getpid()} answers on port {port}, not the command that was started" in failure.message


def test_a_port_shared_with_another_process_is_refused() -> None:
    """Under SO_REUSEPORT the kernel gives each connection to either of the two."""
    port = free_port(PORTS)
    settings = serving("Server.allow_reuse_port = True\nserve(sys.argv[1])", health="/loading")  # only the other one says that it is ready
    with somebody_else(port, share=True) as answer, launched(settings, port=port) as server:

        def join() -> str | None:
            if listening(server.pids()):
                answer()
            return None

        with pytest.raises(ServiceError) as raised:
            server.start(join)
        assert raised.value.failure.kind is FailureKind.WRONG_SERVER
        assert f"process {os.getpid()} answers on port {port}" in raised.value.failure.message


def test_a_server_for_both_versions_of_ip_is_accepted() -> None:
    tail = """
        Server.address_family = socket.AF_INET6
        serve(sys.argv[1], "::")
    """
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with launched(serving(tail)) as server:
        server.start()
        assert listening(server.pids()) == {("::", server.port)}
        assert owners(server.port) == set(server.pids())


def test_the_most_specific_listener_is_the_one_that_answers() -> None:
    with socket.socket() as every, socket.socket() as other:
        every.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        every.bind(("0.0.0.0", 0))
        every.listen()
        port = every.getsockname()[1]
        assert owners(port) == {os.getpid()}
        other.bind(("127.0.0.2", 0))
        other.listen()
        assert owners(other.getsockname()[1]) == set(), "127.0.0.1 does not reach it"
        assert ("0.0.0.0", port) in listening([os.getpid(), 2**22 + 1])
    assert [reachable(address) for address in ("::", "0.0.0.0", "::1", "127.0.0.2")] == ["127.0.0.1", "127.0.0.1", "::1", "127.0.0.2"]
    assert shown("::1", 80) == "[::1]:80"


def test_the_key_reaches_the_server_by_its_environment_alone() -> None:
    code = """
        import http.server, os, sys
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.headers["Authorization"] == "Bearer " + os.environ["TTS_KEY"] else 401)
                self.end_headers()
            def log_message(self, *_): pass
        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
    with launched(script(code, "{port}", env={"TTS_KEY": "{key}"})) as server:
        server.start()
        assert len(server.endpoint.key) == 32
        assert not [word for pid in server.pids() for word in psutil.Process(pid).cmdline() if server.endpoint.key in word]


def test_shared_memory_of_a_killed_server_is_removed() -> None:
    tail = """
        from multiprocessing import resource_tracker, shared_memory
        memory = shared_memory.SharedMemory(create=True, size=4096)
        resource_tracker.unregister(memory._name, "shared_memory")
        serve(sys.argv[1])
    """
    with launched(serving(tail)) as server:
        server.start()
        files = server._own_shared_memory()
        assert files
        for pid in server.pids():
            os.kill(pid, signal.SIGKILL)
        server._process._guard.wait(20)  # type: ignore[union-attr]
        server.stop()
        assert not [path for path in files if os.path.exists(path)]


def test_shared_memory_of_somebody_else_is_left_alone() -> None:
    """A file that a server maps and did not make, such as a store that others use."""
    theirs = Path("/dev/shm/tune_gpu_test_theirs")
    theirs.write_bytes(bytes(4096))
    tail = f"""
        import mmap
        file = open("{theirs}", "r+b")
        held = mmap.mmap(file.fileno(), 4096)
        serve(sys.argv[1])
    """
    try:
        with launched(serving(tail)) as server:
            server.start()
        assert theirs.exists()
    finally:
        theirs.unlink(missing_ok=True)


def test_a_server_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    tail = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(sys.argv[1])"
    with launched(serving(tail, stop_grace_s=0.1)) as server:
        server.start()
        (pid,) = server.pids()
        server.stop()
        assert not psutil.pid_exists(pid)


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
