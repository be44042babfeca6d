"""What this program's own part of the driver holds of a long run: the tournament, the experiment and the progress, without Ray's."""

from __future__ import annotations

import gc
import json
import tempfile
import zlib
from typing import Any

import psutil
from rich.console import Console

from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.progress import Progress
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.run import Experiment
from tune_gpu.search.tournament import Result
from tune_gpu.telemetry.device_choice import choose_device

_DISTRIBUTION = {"n": 60, "mean": 1.0, "p50": 1.0, "p90": 2.0, "p95": 3.0, "p99": 4.0, "max": 5.0}
_NAMES = ("stt_latency_ms", "rtf", "ttft_ms", "itl_ms", "llm_latency_ms", "voice_turn_ms", "background_latency_ms", "generator_lag_ms")


def measure(evaluations: int) -> dict[str, Any]:
    """MiB at each tenth, and for a thousand evaluations over the second half."""
    values = ",".join(f"{0.001 + 0.0001 * i:.4f}" for i in range(2000))
    settings = [f"search.generations={2 + evaluations // 4}", f"parameters.vllm_memory_util.values=[{values}]", "baseline.vllm_memory_util=0.001"]
    config = load_config("spica_gpu_allocation", settings, "cpu")
    rows = []
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(root, "e", "r")
        folder.create("name: e\n")
        experiment = Experiment(config, choose_device("cpu"), folder, Progress(Console(quiet=True), evaluations, [], quiet=True), Refusals())
        for number in range(1, evaluations + 1):
            candidate = experiment.tournament.ask()
            assert candidate is not None
            fitness = 0.1 + zlib.crc32(repr(candidate.params).encode()) / 2**33
            line = {
                "candidate_id": candidate.candidate_id, "generation": candidate.generation, "origin": candidate.origin, "params": candidate.params,
                "status": "ok", "failure": None, "fitness": fitness, "metrics": dict.fromkeys(_NAMES, _DISTRIBUTION),
                "duration_s": {"start": 1.0, "warm": 1.0, "load": 1.0, "stop": 1.0}, "wall_s": 4.0, "engine_reused": True, "n_windows": 3,
            }  # fmt: skip
            result = Result("ok", fitness, n_windows=3)
            experiment.tournament.tell(candidate.candidate_id, result)
            experiment.results.record(candidate, result, {"line_json": json.dumps(line)})
            if number % max(1, evaluations // 10) == 0:
                gc.collect()
                rows.append((number, round(psutil.Process().memory_info().rss / 2**20, 1)))
    half = rows[len(rows) // 2]
    return {"mib": rows, "mib_per_1000_evaluations": round(1000 * (rows[-1][1] - half[1]) / (rows[-1][0] - half[0]), 2)}
