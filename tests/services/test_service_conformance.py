"""The real services conform as kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.conftest import PORTS, toy
from tune_gpu.config.schema import RunSettings
from tune_gpu.services.faster_whisper.kind import KIND as FASTER_WHISPER
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.vllm.kind import KIND as VLLM
from tune_gpu.testing.service_conformance import Case, ServiceConformance


class TestFasterWhisper(ServiceConformance):
    identifying = frozenset({"--name"})

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        settings = WhisperSettings(model="tiny.en", compute_type="int8", cpu_cores="0", env={"OMP_DYNAMIC": "false"})
        return Case(FASTER_WHISPER, settings, name="stt", ports=PORTS)


@pytest.mark.soak  # fourteen engine starts
@pytest.mark.timeout(900)
class TestVllm(ServiceConformance):
    """Start it cold where its command line is read, and fork it where it is disturbed."""

    identifying = frozenset({"--served-model-name"})

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Iterator[Case]:
        host = VLLM.host(RunSettings(), "cpu")
        assert host is not None
        host.prepare(toy())
        host.wait()
        yield Case(VLLM, toy(start_timeout_s=600.0), name="llm", ports=PORTS, host=host)
        host.close()
