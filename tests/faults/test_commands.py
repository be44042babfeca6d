"""Services of kind `command` broken as vLLM and Whisper are: the right kind of failure by the service's name, and nothing left behind."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.faults.fault_injector import FaultInjector, memory_cgroup, stopped
from tests.faults.tiny import SCRIPT
from tune_gpu.common.failures import FailureKind, Phase, ServiceError
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement, Status
from tune_gpu.services.deployment import resolve

_SERVICE = f"""
    kind: command
    command: [{sys.executable}, -S, -E, "{SCRIPT}", "{{port}}", tiny, TINY_KEY, "{{settings.behaviour}}"]
    health: /health
    model: tiny
    settings: {{behaviour: well}}
    env: {{TINY_KEY: "{{key}}"}}
    stop_grace_s: 0.2
"""
SPACE = f"""
name: commands
services:
  stt: {_SERVICE}
    api: openai-transcriptions
  llm: {_SERVICE}
    api: openai-completions
parameters:
  stt: {{target: stt.settings.behaviour, values: [well, http_500], kind: categorical}}
  llm:
    target: llm.settings.behaviour
    values: [well, llm_http_500, llm_empty_stream, llm_half_stream, slow_answer, slow_start, crash, out_of_memory, greedy]
    kind: categorical
  patience: {{target: llm.start_timeout_s, values: [0.5, 60]}}
objective: {{weights: {{llm.latency: 1.0}}}}
traffic: {{turn: [stt, llm], turn_rate_per_s: 20.0, window_s: 0.2, max_tokens: 4, warmup_turns: 1, capacity_step_s: 0}}
run: {{preflight: false, memory_stable_samples: 1, hang_timeout_s: 1}}
"""


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    """Both services are commands. One that no fault has ended stays up for the next test, as it would for the next candidate."""
    path = tmp_path_factory.mktemp("space") / "commands.yaml"
    path.write_text(SPACE, encoding="utf-8")
    evaluator = Evaluator(load_config(str(path), [], "cpu", trust=True), "cpu")
    yield evaluator
    evaluator.close()


@pytest.fixture(autouse=True)
def the_services_go_too(evaluator: Evaluator, nothing_of_ours_is_left: None) -> Iterator[None]:
    """Between two tests no service stays, so that each can be asked what it left."""
    yield
    evaluator.stop_services()


def params(**change: object) -> dict[str, object]:
    return {"stt": "well", "llm": "well", "patience": 60.0, **change}


def check_failed(found: Measurement, service: str, kind: FailureKind, phase: Phase, said: str = "") -> None:
    assert found.status is Status.FAILED
    assert found.failure is not None
    assert (found.failure.service, found.failure.kind, found.failure.phase) == (service, kind, phase), found.failure
    assert said in found.failure.message + found.failure.evidence
    assert found.metrics == {}, "no number of a candidate that was not measured"


def pids_of(evaluator: Evaluator, service: str) -> list[int]:
    running = evaluator.running.get(service)  # asked once: the evaluator may stop it meanwhile, in another thread
    return [] if running is None else running.pids()


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ({"llm": "slow_start", "patience": 0.5}, FailureKind.STARTUP_TIMEOUT, "not ready 0.5 s after its start"),
        ({"llm": "crash"}, FailureKind.STARTUP_CRASH, "no voice named heart"),
        ({"llm": "out_of_memory"}, FailureKind.STARTUP_OOM, "out of memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_start_that_fails_is_named_for_what_it_is(evaluator: Evaluator, how: dict[str, object], kind: FailureKind, said: str) -> None:
    check_failed(evaluator.evaluate(params(**how)), "llm", kind, Phase.START, said)


@pytest.mark.parametrize(
    ("service", "how", "said"),
    [
        ("stt", "http_500", "stt_http_500"),
        ("llm", "llm_http_500", "llm_http_500"),
        ("llm", "llm_empty_stream", "llm_empty_answer"),
        ("llm", "llm_half_stream", "llm_truncated_stream"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_request(evaluator: Evaluator, service: str, how: str, said: str) -> None:
    check_failed(evaluator.evaluate(params(**{service: how})), service, FailureKind.REQUESTS_FAILED, Phase.LOAD, said)


def moment_of(evaluator: Evaluator, moment: str) -> Callable[[], bool]:
    return {"starting": lambda: bool(pids_of(evaluator, "llm")), "under load": lambda: len(evaluator.running) == 2 and evaluator.requests_under_way("llm") > 0}[moment]


@pytest.mark.parametrize(
    ("moment", "how", "kind", "phase"),
    [("starting", "slow_start", FailureKind.STARTUP_CRASH, Phase.START), ("under load", "slow_answer", FailureKind.SERVICE_LOST, Phase.LOAD)],
)
def test_killed(evaluator: Evaluator, rng: random.Random, moment: str, how: str, kind: FailureKind, phase: Phase) -> None:
    with FaultInjector(moment_of(evaluator, moment), lambda: pids_of(evaluator, "llm"), signal.SIGKILL, rng.uniform(0.0, 0.1)) as injector:
        found = evaluator.evaluate(params(llm=how))
    assert injector.injected, "the moment came"
    check_failed(found, "llm", kind, phase)
    assert evaluator.evaluate(params()).status is Status.OK, "the next candidate is measured"


def test_one_that_stands_still_under_load_is_a_hang(evaluator: Evaluator) -> None:
    evaluator.begin(resolve(evaluator.config, params(), "cpu"))
    with stopped(pids_of(evaluator, "llm")):
        check_failed(_rest(evaluator), "llm", FailureKind.SERVICE_HUNG, Phase.LOAD)


def _rest(evaluator: Evaluator) -> Measurement:
    try:
        evaluator.window()
        return evaluator.finish()
    except ServiceError as error:
        return evaluator.fail(error.failure)


def test_killed_by_the_kernel_for_want_of_memory(evaluator: Evaluator) -> None:
    def victims() -> Sequence[int]:
        return pids_of(evaluator, "llm")

    with memory_cgroup(64) as confine, FaultInjector(lambda: bool(victims()), victims, confine) as injector:
        found = evaluator.evaluate(params(llm="greedy"))
    assert injector.injected
    check_failed(found, "llm", FailureKind.OOM_KILLED, Phase.START, "oom_kill rose")
