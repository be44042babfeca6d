"""The real evaluator with tiny services where vLLM and Whisper would be: what starts, proves, drives, judges and ends them is unchanged."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tune_gpu.common.process.managed import ManagedProcess
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.deployers import LocalDeployer
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.vllm.kind import VllmHost
from tune_gpu.services.vllm.launch import Launch, Launched

SCRIPT = str(Path(__file__).with_name("tiny_service.py"))
SETTINGS = [
    "workload.windows=1",
    "workload.window_s=0.2",
    "workload.turn_rate_per_s=20",
    "workload.max_tokens=4",
    "workload.solo_window_s=0",
    "workload.capacity_step_s=0",
    "objective.weights.capacity=0",
    "run.preflight=false",
    "run.memory_stable_samples=1",
]
PARAMS = {"vllm_memory_util": 0.1, "vllm_cores": "0", "whisper_model_size": "tiny.en", "whisper_cores": "1"}


class TinyHost:
    """Starts tiny servers where the fork server would fork vLLM."""

    def __init__(self) -> None:
        self.behaviour = "well"

    def prepare(self) -> None: ...

    def open(self) -> None: ...

    def close(self) -> None: ...

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="tg-"))

    def launch(self, launch: Launch, grace_s: float) -> Launched:
        port, name = (launch.argv[launch.argv.index(flag) + 1] for flag in ("--port", "--served-model-name"))
        command = [sys.executable, "-S", "-E", SCRIPT, port, name, "VLLM_API_KEY", self.behaviour]
        return ManagedProcess(command, log=launch.log, env=launch.env, grace_s=0.2, scratch=launch.scratch)


class TinyWhisper(WhisperService):
    """Runs the tiny server instead of faster-whisper."""

    behaviour = "well"

    def command(self) -> list[str]:
        return [sys.executable, "-S", "-E", SCRIPT, str(self.port), self._name, "TUNE_GPU_API_KEY", type(self).behaviour]


class TinyEvaluator(Evaluator):
    """`with TinyEvaluator(monkeypatch) as evaluator: evaluator.behave(whisper="http_500"); evaluator.evaluate(PARAMS)`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *settings: str) -> None:
        config, self._tiny = load_config("spica_gpu_allocation", [*SETTINGS, *settings], "cpu"), TinyHost()
        super().__init__(config, "cpu", deploy=LocalDeployer(config, "cpu", {"vllm": VllmHost("cpu", self._tiny)}))  # type: ignore[arg-type]
        monkeypatch.setattr("tune_gpu.services.faster_whisper.kind.WhisperService", TinyWhisper)
        monkeypatch.setattr(TinyWhisper, "behaviour", "well")

    def behave(self, whisper: str = "well", vllm: str = "well") -> None:
        """How the services of the next evaluation answer."""
        TinyWhisper.behaviour, self._tiny.behaviour = whisper, vllm

    def __enter__(self) -> TinyEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
