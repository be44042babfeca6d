"""Candidates of a space with a command and an external service are evaluated for real: small servers, real processes, real traffic."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tune_gpu.cli.plan_view import print_plan
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.common.process.ports import free_port
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.memory_check.cards import this_node
from tune_gpu.evaluation.memory_check.space_plan import Preflight
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.command.listeners import owners
from tune_gpu.services.deployment import resolve
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.testing import fake_server

SERVER = str(Path(fake_server.__file__))
SPACE = f"""
name: commands
services:
  llm:
    kind: command
    command: [{sys.executable}, -P, {SERVER}, "{{port}}", "{{settings.latency_ms}}"]
    health: /health
    api: openai-chat
    model: fake
    settings: {{latency_ms: 1}}
    env: {{FAKE_API_KEY: "{{key}}", FAKE_KV_CACHE: "0.25"}}
    metrics: /metrics
    stop_grace_s: 0.5
  idle:
    kind: command
    command: [{sys.executable}, -P, {SERVER}, "{{port}}", "1"]
    health: /health
    env: {{FAKE_KV_CACHE: "0.5"}}
    metrics: /metrics
    stop_grace_s: 0.5
  other: {{kind: external, url: "URL", api: openai-chat}}
parameters:
  latency: {{target: llm.settings.latency_ms, values: [1, 30]}}
objective: {{weights: {{llm.latency: 1.0}}, targets: {{llm.latency_ms: 100}}}}
traffic: {{turn: [llm], turn_rate_per_s: 8.0, max_tokens: 4, warmup_turns: 1, windows: 1, window_s: 1.5, background: {{other: 2.0}}}}
run: {{preflight: false, hang_timeout_s: 5}}
"""


@dataclass(frozen=True)
class Other:
    """A server that runs already."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def other() -> Iterator[Other]:
    port = free_port([20000, 29999])
    process = subprocess.Popen([sys.executable, "-P", SERVER, str(port), "1"], stdout=subprocess.DEVNULL)
    try:
        while not owners(port):
            assert process.poll() is None
        yield Other(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def config(other: Other, tmp_path: Path) -> ExperimentConfig:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("URL", other.url))
    return load_config(str(path), [], "cpu", trust=True)


def test_only_the_service_whose_knob_changed_is_restarted(config: ExperimentConfig, other: Other) -> None:
    evaluator = Evaluator(config, "cpu")
    try:
        fast = evaluator.evaluate({"latency": 1})
        assert fast.failure is None
        idle, pids = evaluator.running["idle"], evaluator.running["idle"].pids()
        slow = evaluator.evaluate({"latency": 30})
        assert slow.failure is None
        assert evaluator.running["idle"] is idle
        assert evaluator.running["idle"].pids() == pids
        parts = slow.timings.durations().start_by_part
        assert parts is not None
        assert parts["idle"] == 0.0 < parts["llm"], "the artifacts say which one was started anew, and that the other was kept"
        latency = [measured.metrics["llm.latency_ms"]["p50"] for measured in (fast, slow)]
        assert latency[1] > 4 * 30 > latency[0]
        assert fast.metrics["llm.kv_cache_peak_pct"] == 25.0
        trace = fast.metrics["device_trace"]
        assert (set(trace["llm.kv_cache_pct"]), set(trace["idle.kv_cache_pct"])) == ({25.0}, {50.0}), "each service reports its own cache, driven or not"
    finally:
        evaluator.close()
    assert other.process.poll() is None, "an external service is left alone"


def test_what_two_starts_took_predicts_the_third(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its first start a command is not modelled. A service that is kept over two candidates is one start."""
    monkeypatch.setenv("TUNE_GPU_CACHE", str(tmp_path))
    config.run.preflight, config.workload.capacity_step_s, config.workload.window_s = True, 0.0, 1.1
    blind = Preflight(config, this_node(), starts=EarlierStarts())
    assert "what llm and idle takes is not known" in blind.predict(resolve(config, {}, "cpu").services).reason
    for latencies in ((1, 30), (1,)):
        evaluator = Evaluator(config, "cpu")
        try:
            for latency in latencies:
                assert evaluator.evaluate({"latency": latency}).failure is None
        finally:
            evaluator.close()
    known = Preflight(config, this_node(), starts=EarlierStarts())
    services = resolve(config, {"latency": 1}, "cpu").services
    found = known.predict(services)
    assert set(found.parts_mib) == {"llm", "idle", "other", "neighbours"}
    assert 5 < found.parts_mib["llm"] < 200
    assert found.parts_mib["other"] == 0
    footprints = {service.name: known.footprint(service) for service in services}
    assert {name: footprint.starts for name, footprint in footprints.items() if footprint} == {"llm": 2, "idle": 2, "other": 0}
    rows = run_plan(config, known)
    assert "memory of idle: from 2 earlier starts (" in rows
    assert "memory of llm: from 1 to 2 earlier starts each (" in rows


def run_plan(config: ExperimentConfig, preflight: Preflight) -> str:
    """Return what `tune-gpu plan` prints."""
    params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    console = Console(file=io.StringIO(), width=200)
    print_plan(console, config, preflight, params, found)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_command_that_dies_under_load_is_lost_by_its_name(config: ExperimentConfig) -> None:
    evaluator = Evaluator(config, "cpu")
    try:
        evaluator.begin(resolve(config, {"latency": 1}, "cpu"))
        for pid in evaluator.running["idle"].pids():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServiceError) as raised:
            evaluator.window()
        failure = raised.value.failure
        assert (failure.service, failure.kind) == ("idle", FailureKind.SERVICE_LOST)
    finally:
        evaluator.close()


def test_an_external_service_that_ends_fails_the_candidate(config: ExperimentConfig, other: Other) -> None:
    evaluator = Evaluator(config, "cpu")
    try:
        evaluator.begin(resolve(config, {"latency": 1}, "cpu"))
        other.process.kill()
        other.process.wait()
        with pytest.raises(ServiceError) as raised:
            evaluator.window()
        assert raised.value.failure.service == "other"
    finally:
        evaluator.close()
