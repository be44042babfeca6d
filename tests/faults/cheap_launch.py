"""`tune_gpu.launch` with evaluations that cost next to nothing: `python -m tests.faults.cheap_launch …`, arguments as for the real one.

The command, the driver, the search, Ray, the trial's actor and the artifacts are the real ones; in place of vLLM and Whisper the actor
holds one guarded process, so that it can be seen whether services end. For faults of the driver, not of what is measured.
"""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from trainables import spica
from tune_gpu.cli.launch import launch
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.managed import ManagedProcess
from tune_gpu.evaluation.measurement import Measurement, Score, Status
from tune_gpu.experiment import run as experiment
from tune_gpu.services.deployment import Deployment
from tune_gpu.services.start_failures import explain_exit

EVALUATION_S = float(os.environ.get("CHEAP_EVALUATION_S", "0.3"))
NO_WER_WITH = os.environ.get("CHEAP_NO_WER_WITH")
"""The Whisper model whose evaluations have no word error rate."""
LOG = os.environ.get("CHEAP_LOG")
"""What vLLM prints before it ends with exit code 2; `{pid}` stands for a number that differs from start to start."""
FAILURE = os.environ.get("CHEAP_FAILURE", "")
"""What the services of every second configuration say as they fail; none: they do not fail."""
METRICS = {"stt_latency_ms": {"p50": 1.0, "p95": 2.0}, "llm_latency_ms": None, "voice_turn_ms": None, "wer": 0.1, "concurrent_capacity": 1}


class CheapEvaluator:
    """What `Evaluator` is to its trial, without services."""

    def __init__(self) -> None:
        self._service: ManagedProcess | None = None
        self._fitness = 0.0
        self._metrics: dict[str, Any] = {}

    def begin(self, deployment: Deployment, **_given: Any) -> None:
        params = deployment.params
        if LOG is not None:
            time.sleep(EVALUATION_S)
            raise ServiceError(explain_exit("vllm", LOG.format(pid=time.monotonic_ns()), 2))
        if self._service is None:
            scratch = Path(tempfile.mkdtemp(prefix="tg-"))
            self._service = ManagedProcess(["sleep", "3600"], log=scratch / "log", env=os.environ, grace_s=0.2, scratch=scratch)
        if FAILURE and zlib.crc32(repr(sorted(params.items())).encode()) % 2:
            raise ServiceError(Failure(FailureKind.SERVICE_LOST, "vllm", Phase.START, FAILURE, FAILURE[:500]))
        self._fitness = 0.1 + zlib.crc32(repr(sorted(params.items())).encode()) / 2**33
        self._metrics = METRICS | ({"wer": None} if params["whisper_model_size"] == NO_WER_WITH else {})

    def window(self) -> None:
        time.sleep(EVALUATION_S)

    def so_far(self) -> Measurement:
        return Measurement(Status.OK, "cpu", metrics=self._metrics | {"fitness_windows": [self._fitness]}, score=Score(self._fitness), n_windows=1)

    finish = so_far

    def fail(self, failure: Failure) -> Measurement:
        return Measurement.failed(failure, "cpu")

    def close(self) -> None:
        if self._service is not None:
            self._service.stop()


class CheapTrainable(spica.SpicaTrainable):
    """The real trial with the cheap evaluator: each actor's process puts it in the real one's place."""

    def setup(self, config: dict[str, Any], experiment: dict[str, Any] | None = None, device: str = "cpu") -> None:
        spica.Evaluator = lambda *_given, **_named: CheapEvaluator()  # type: ignore[assignment,misc]
        super().setup(config, experiment, device)


def main() -> None:
    spica.SpicaTrainable = CheapTrainable  # type: ignore[misc]
    experiment.TRIALS_A_TUNER = int(os.environ.get("CHEAP_TRIALS_A_TUNER", experiment.TRIALS_A_TUNER))
    launch()


if __name__ == "__main__":
    main()
