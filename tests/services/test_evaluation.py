"""One evaluation, whole: real vLLM and real Whisper under real voice turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tune_gpu.common.failures import FailureKind, Phase, ServiceError
from tune_gpu.common.process import guard
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Status
from tune_gpu.services.deployment import resolve

QUICK = [
    "workload.windows=2",
    "workload.window_s=1.5",
    "workload.capacity_step_s=1",
    "workload.capacity_max_sessions=1",
    "workload.turn_rate_per_s=1",
    "workload.solo_window_s=1.5",
    "parameters.vllm_memory_util.values=[0.01,0.1]",
    "baseline.vllm_memory_util=0.1",
    "services.vllm.max_num_seqs=4",
]
TINY = {"vllm_memory_util": 0.1, "vllm_cores": "0", "whisper_model_size": "tiny.en", "whisper_cores": "1"}


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    before = guard.descendants(os.getpid())
    evaluator = Evaluator(load_config("spica_gpu_allocation", QUICK, "cpu"), "cpu")
    yield evaluator
    started = [pid for pid in guard.descendants(os.getpid()) if pid not in before]
    assert started
    evaluator.close()
    assert [pid for pid in started if start_ticks(pid) is not None] == []


@pytest.fixture(autouse=True)
def nothing_of_ours_is_left() -> None:
    """Here the engine stays from test to test on purpose; the end of the module is checked instead."""


def test_a_candidate_is_measured_in_everything_that_the_artifacts_promise(evaluator: Evaluator) -> None:
    found = evaluator.evaluate(TINY)
    assert found.status is Status.OK, found.failure
    metrics = found.metrics
    for name in ("stt_latency_ms", "llm_latency_ms", "ttft_ms", "itl_ms", "voice_turn_ms", "rtf"):
        assert {"p50", "p90", "p95", "p99"} <= metrics[name].keys(), name
    assert metrics["ttft_ms"]["p50"] < 0.8 * metrics["llm_latency_ms"]["p50"], "tokens are seen as they are made"
    for name in ("tokens_per_s", "wer", "gpu_utilization", "concurrent_capacity", "kv_cache_tokens", "memory_used_mib"):
        assert metrics[name] is not None, name
    assert metrics["oom_events"] == 0
    assert metrics["service_memory_mib"]["vllm"] > 100
    assert metrics["service_memory_mib"]["whisper"] > 50
    assert set(metrics["interference_ratio"]) == {"stt", "llm"}
    assert found.score is not None
    assert 0 < (found.score.fitness or 0) < 1
    assert len(metrics["fitness_windows"]) == found.n_windows == 2
    assert not found.engine_reused
    assert found.timings.start_s["vllm"] > 0


def test_the_engine_stays_while_its_flags_do_not_change(evaluator: Evaluator) -> None:
    found = evaluator.evaluate(TINY | {"whisper_cores": "0-1"})
    assert found.status is Status.OK, found.failure
    assert found.engine_reused
    assert found.timings.start_s["vllm"] == 0
    changed = evaluator.evaluate(TINY | {"vllm_cores": "0-1"})
    assert changed.status is Status.OK, changed.failure
    assert not changed.engine_reused


def test_what_cannot_fit_is_refused_before_anything_starts(evaluator: Evaluator) -> None:
    refused = evaluator.evaluate(TINY | {"vllm_memory_util": 0.01})
    assert refused.status is Status.INFEASIBLE
    assert refused.failure is not None
    assert refused.failure.phase is Phase.PREFLIGHT
    assert "cannot hold" in refused.failure.message
    assert refused.timings.start_s == {}
    assert refused.metrics == {}


def test_a_candidate_that_cannot_start_fails_and_the_next_is_measured(evaluator: Evaluator) -> None:
    evaluator.config.run.preflight = False
    failed = evaluator.evaluate(TINY | {"vllm_memory_util": 0.01})
    evaluator.config.run.preflight = True
    assert failed.status is Status.FAILED
    assert failed.failure is not None
    assert failed.failure.kind is FailureKind.STARTUP_NO_KV_MEMORY
    assert failed.metrics == {}
    assert evaluator.evaluate(TINY).status is Status.OK


@pytest.mark.parametrize("service", ["whisper", "vllm"])
def test_a_service_that_dies_under_load_is_lost_not_slow(evaluator: Evaluator, service: str) -> None:
    evaluator.begin(resolve(evaluator.config, TINY, "cpu"))
    pids = evaluator.running[service].pids()
    window_runs = psutil.Process(pids[0])
    assert window_runs.is_running()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ServiceError) as caught:
        evaluator.window()
    measurement = evaluator.fail(caught.value.failure)
    assert measurement.status is Status.FAILED
    assert measurement.failure is not None
    assert (measurement.failure.kind, measurement.failure.service) == (FailureKind.SERVICE_LOST, service)
    assert measurement.failure.phase is Phase.LOAD


def test_nothing_survives_when_the_trials_own_process_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        from tests.services.test_evaluation import QUICK, TINY
        from tune_gpu.evaluation.evaluator import Evaluator
        from tune_gpu.config.loader import load_config
        from tune_gpu.services.deployment import resolve
        evaluator = Evaluator(load_config("spica_gpu_allocation", {QUICK!r}, "cpu"), "cpu")
        evaluator.begin(resolve(evaluator.config, TINY, "cpu"))
        print("deployed", flush=True)
        while True:
            evaluator.window()
        """
    )
    trial = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert trial.stdout is not None
    assert trial.stdout.readline() == "deployed\n"
    tree = [psutil.Process(pid) for pid in guard.descendants(trial.pid)]
    assert len(tree) >= 7, "guards, host, API server, engine core, worker, Whisper"
    trial.kill()
    trial.wait()
    trial.stdout.close()
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
