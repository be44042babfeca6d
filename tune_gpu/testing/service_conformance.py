"""Conformance tests for kinds of service: a kind whose tests pass can be measured, kept, ended and deployed as the built-in ones are.

Derive from `ServiceConformance`, and define the fixture `case` for the class:

    class TestMyKind(ServiceConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def case(cls) -> Case:
            return Case(MyKind(), MySettings(speed=3))

The service is started five times. The tests run the real server, on the device that `case` names.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.common.metric import Protocol
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.base import KindHost, LaunchSite, Reports, ServiceKind
from tune_gpu.services.command.listeners import owners
from tune_gpu.services.exercise import KnowsExercise, Use
from tune_gpu.services.running import RunningService
from tune_gpu.telemetry.open import open_probe
from tune_gpu.testing.leavings import Leavings, watched

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Case:
    """One kind with settings that start, and where."""

    kind: ServiceKind
    settings: Any
    device: str = "cpu"
    name: str = "service"
    ports: Sequence[int] = (20000, 29999)
    host: KindHost | None = None
    """What the kind's services share; used for the starts that are disturbed."""

    def launch(self, *, port: int | None = None, host: KindHost | None = None) -> RunningService[Any]:
        """Return the service, not yet started."""
        return self.kind.launch(self.name, self.settings, LaunchSite(self.device, self.ports if port is None else [port, port], host))


class AnsweringConformance:
    """What holds for every kind, also for one that does not start its service."""

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, case: Case) -> Iterator[RunningService[Any]]:
        """Start the service once for all tests that leave it as it was."""
        case.kind.check(case.name, case.settings, local=True)
        service = case.launch()
        try:
            service.start()
            yield service
        finally:
            service.stop()

    def processes(self, running: RunningService[Any]) -> list[int]:
        """Return the processes that answer; a kind that does not start them has them from elsewhere."""
        return running.pids()

    def test_it_starts_and_answers_its_health_check(self, running: RunningService[Any]) -> None:
        assert running.info is not None
        assert running.start_s is not None
        assert math.isfinite(running.start_s)
        assert running.healthy(_PATIENCE_S)
        assert running.failure() is None
        assert isinstance(running.log(), str)

    def test_its_protocol_needs_a_model_that_requests_can_name(self, case: Case, running: RunningService[Any]) -> None:
        protocol = case.kind.protocol(case.settings)
        assert protocol is None or protocol not in (Protocol.DEVICE, Protocol.TURN)
        assert urlsplit(running.endpoint.url).scheme in ("http", "https")
        assert protocol in (None, Protocol.TRANSCRIPTION) or running.endpoint.model

    def test_its_gauges_are_finite_numbers(self, running: RunningService[Any]) -> None:
        assert all(isinstance(name, str) and math.isfinite(value) for name, value in running.gauges().items())

    def test_what_was_not_measured_is_not_said_to_be_unexercised(self, case: Case) -> None:
        if isinstance(case.kind, KnowsExercise):  # the hook is optional
            assert list(case.kind.unexercised([Use(case.settings)])) == []

    def test_equal_settings_have_equal_reuse_keys(self, case: Case) -> None:
        assert case.kind.reuse_key(copy.deepcopy(case.settings)) == case.kind.reuse_key(case.settings)

    def test_a_hang_is_unhealthy_and_no_death(self, running: RunningService[Any]) -> None:
        pids = self.processes(running)
        try:
            _signal(pids, signal.SIGSTOP)
            assert not running.healthy(1.0)
            assert running.failure() is None
        finally:
            _signal(pids, signal.SIGCONT)
        _until(lambda: running.healthy(1.0))


class ServiceConformance(AnsweringConformance):
    """What holds for a kind that starts its service."""

    identifying: frozenset[str] = frozenset()
    """Flags that only name a service, so that a deployed one has another value."""

    @pytest.fixture
    def leavings(self) -> Iterator[Leavings]:
        """Look for what is left of the services that a test starts."""
        with watched() as found:
            yield found

    def test_its_port_is_served_by_its_own_processes(self, running: RunningService[Any]) -> None:
        found = owners(_port(running))
        assert found
        assert found <= set(running.pids())

    def test_it_runs_on_the_device_of_its_site(self, case: Case, running: RunningService[Any]) -> None:
        facts = running.info.as_dict() if isinstance(running.info, Reports) else dict(running.info or {})
        assert facts.get("device", case.device) == case.device
        cards = case.kind.gpus(case.settings).cards
        seen = {_environment(pid).get("CUDA_VISIBLE_DEVICES", "") for pid in running.pids()}
        if case.device == "cpu" or not cards:
            assert seen <= {"", os.environ.get("CUDA_VISIBLE_DEVICES", "")}
            return
        probe = open_probe(case.device, (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0])
        try:
            assert probe.memory_by_pid_mib(running.pids()) != {}, "none of its processes holds memory on the card"
        finally:
            probe.close()

    def test_its_key_is_neither_on_a_command_line_nor_in_its_log(self, running: RunningService[Any]) -> None:
        key = running.endpoint.key
        if key:
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in running.pids()]
            assert lines
            assert not [line for line in lines if key in line]
            assert key not in running.log()

    def test_what_would_be_deployed_is_what_was_launched(self, case: Case, running: RunningService[Any]) -> None:
        """Compare the arguments and the environment of its first process, but for what only an evaluation has."""
        deployable = case.kind.deployable(case.name, case.settings, case.device, host="127.0.0.1", port=_port(running))
        assert deployable is not None
        argv = Path(f"/proc/{running.pids()[0]}/cmdline").read_bytes().decode().split("\0")[:-1]
        launched, deployed = (_flags(each) for each in (argv, deployable.arguments()))
        for flag in self.identifying:
            assert flag in launched, f"{flag} names nothing"
            launched.pop(flag), deployed.pop(flag, None)
        assert launched == deployed
        own, inherited = _environment(running.pids()[0]), os.environ
        evaluation = {*case.kind.held, *deployable.key_variables, "PYTEST_CURRENT_TEST"}
        assert {name: own.get(name) for name in deployable.env if name not in evaluation} == {
            name: value for name, value in deployable.env.items() if name not in evaluation
        }
        added = {name for name, value in own.items() if inherited.get(name) != value}
        assert added <= {*deployable.env, *evaluation}
        assert not running.endpoint.key or running.endpoint.key not in deployable.env.values()

    def test_another_server_on_its_port_is_not_mistaken_for_it(self, case: Case, leavings: Leavings) -> None:
        port = free_port(case.ports)
        service = case.launch(port=port, host=case.host)
        with _impostor(port), pytest.raises(ServiceError) as raised:
            service.start()
        assert raised.value.failure.kind in (FailureKind.WRONG_SERVER, FailureKind.PORT_CONFLICT, FailureKind.STARTUP_CRASH)
        assert raised.value.failure.service == case.name
        leavings.check()

    def test_its_death_is_a_failure_and_leaves_nothing(self, case: Case, leavings: Leavings) -> None:
        service = case.launch(host=case.host)
        try:
            service.start()
            leavings.see(service)
            _signal(service.pids(), signal.SIGKILL)
            _until(lambda: service.failure() is not None)
            failure = service.failure()
            assert failure is not None
            assert failure.service == case.name
            assert failure.kind in (FailureKind.SERVICE_LOST, FailureKind.OOM_KILLED)
            assert not service.healthy(1.0)
        finally:
            service.stop()
        leavings.check()

    def test_a_hung_service_is_ended_and_leaves_nothing(self, case: Case, leavings: Leavings) -> None:
        service = case.launch(host=case.host)
        try:
            service.start()
            leavings.see(service)
            _signal(service.pids(), signal.SIGSTOP)
        finally:
            service.stop()
        leavings.check()
        assert service.pids() == []
        assert service.failure() is not None
        service.stop()

    def test_a_start_gives_up_on_abort_and_leaves_nothing(self, case: Case, leavings: Leavings) -> None:
        service = case.launch(host=case.host)
        with pytest.raises(ServiceError, match="asked to give up") as raised:
            service.start(abort=lambda: "asked to give up")
        assert raised.value.failure.service == case.name
        leavings.check()

    def test_a_start_that_fails_leaves_nothing(self, case: Case, leavings: Leavings) -> None:
        """Kill its processes as soon as there are any, before it can be ready."""
        service = case.launch(host=case.host)
        ended = threading.Event()

        def kill() -> None:
            while not ended.is_set():
                leavings.see(service)
                _signal(service.pids(), signal.SIGKILL)
                time.sleep(0.001)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(ServiceError) as raised:
                service.start()
        finally:
            ended.set()
            killer.join()
            service.stop()
        assert raised.value.failure.service == case.name
        leavings.check()


def _port(service: RunningService[Any]) -> int:
    return urlsplit(service.endpoint.url).port or 80


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def _environment(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (line.partition("=") for line in lines if line)}


def _flags(argv: Sequence[str]) -> dict[str, list[str]]:
    """Return each flag with its words, whose order among others says nothing; the program and what precedes the flags has the name ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name = word
            found.setdefault(name, [])
        else:
            found[name].append(word)
    return found


@contextlib.contextmanager
def _impostor(port: int) -> Iterator[None]:
    """Answer every request on this port with success."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
