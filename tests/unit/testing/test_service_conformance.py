"""The kinds that start in a moment conform: the fake, a command, and a service that runs already."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.common.process.ports import free_port
from tune_gpu.services.command.kind import KIND as COMMAND
from tune_gpu.services.command.listeners import owners
from tune_gpu.services.command.settings import CommandSettings
from tune_gpu.services.external.kind import KIND as EXTERNAL
from tune_gpu.services.external.settings import ExternalSettings
from tune_gpu.services.running import RunningService
from tune_gpu.testing import fake_server
from tune_gpu.testing.fake_kind import KIND as FAKE
from tune_gpu.testing.fake_kind import FakeSettings
from tune_gpu.testing.service_conformance import AnsweringConformance, Case, ServiceConformance

SERVER = str(Path(fake_server.__file__))
PORTS = [20000, 29999]


class TestFake(ServiceConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        return Case(FAKE, FakeSettings(latency_ms=2.0, env={"ONE": "1"}), name="fake")


class TestCommand(ServiceConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        settings = CommandSettings(
            command=[sys.executable, "-P", SERVER, "{port}", "{settings.latency_ms}"],
            health="/health",
            api="openai-chat",
            model="fake",
            settings={"latency_ms": 1.5},
            env={"FAKE_API_KEY": "{key}", "AT": "{host}:{port}"},
            cpu_cores="0",
        )
        return Case(COMMAND, settings, name="llm")


class TestExternal(AnsweringConformance):
    pid = 0

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Iterator[Case]:
        port = free_port(PORTS)
        process = subprocess.Popen([sys.executable, "-P", SERVER, str(port), "1"], stdout=subprocess.DEVNULL)
        try:
            while not owners(port):
                assert process.poll() is None
            cls.pid = process.pid
            yield Case(EXTERNAL, ExternalSettings(f"http://127.0.0.1:{port}", api="openai-chat"), name="other")
        finally:
            process.kill()
            process.wait()

    def processes(self, running: RunningService[Any]) -> list[int]:
        assert running.pids() == []
        return [self.pid]
