"""The driver's resident memory over a run of evaluations that do nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil


def measure(evaluations: int) -> dict[str, Any]:
    """MiB, open files and threads of the driver at each tenth of the run; MiB for a thousand evaluations over its second half."""
    generations = 1 + (evaluations - 2) // 4
    values = "[" + ",".join(f"{0.001 + 0.0001 * i:.4f}" for i in range(2000)) + "]"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "tests.faults.cheap_launch", "device=cpu", "ray.dashboard=false", "run.preflight=false", "workload.windows=1",
            f"search.generations={generations}", f"parameters.vllm_memory_util.values={values}", "baseline.vllm_memory_util=0.001",
            f"run.artifacts_dir={folder}",
        ]  # fmt: skip
        driver = subprocess.Popen(
            command, env={**os.environ, "CHEAP_EVALUATION_S": "0"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert driver.stdout is not None
        process, seen, rows, began = psutil.Process(driver.pid), 0, [], time.monotonic()
        tail: list[str] = []
        for line in driver.stdout:
            tail = [*tail[-20:], line]
            if " ok: " in line:
                seen += 1
                if seen % max(1, evaluations // 10) == 0:
                    rows.append(
                        {"evaluations": seen, "rss_mib": round(process.memory_info().rss / 2**20, 1), "files": process.num_fds(),
                         "threads": process.num_threads(), "s": round(time.monotonic() - began, 1)}
                    )  # fmt: skip
        assert driver.wait() == 0, "".join(tail)
    half = rows[len(rows) // 2]
    grown = (rows[-1]["rss_mib"] - half["rss_mib"]) / (rows[-1]["evaluations"] - half["evaluations"]) * 1000
    return {"rows": rows, "mib_per_1000_evaluations": round(grown, 2)}
