"""vLLM and Whisper broken at every moment of an evaluation: the right status, nothing left behind, and the next candidate is measured."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.faults.fault_injector import FaultInjector, engine_log, engine_pids, memory_cgroup, no_more_address_space, stopped
from tests.services.test_evaluation import QUICK, TINY
from tune_gpu.common.failures import FailureKind, Phase, ServiceError
from tune_gpu.common.process.managed import ManagedProcess, start_ticks
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.deployers import LocalDeployer
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement, Status
from tune_gpu.services.deployment import resolve
from tune_gpu.services.vllm.kind import VllmHost
from tune_gpu.services.vllm.launch import ForkServer

pytestmark = pytest.mark.services

HANG_TIMEOUT_S = 3.0
SETTINGS = [*QUICK, "workload.solo_window_s=0", "workload.windows=1", f"run.hang_timeout_s={HANG_TIMEOUT_S}"]


@pytest.fixture(scope="module")
def evaluator(host: ForkServer) -> Iterator[Evaluator]:
    """The real evaluator on the shared fork server."""
    config = load_config("spica_gpu_allocation", SETTINGS, "cpu")
    evaluator = Evaluator(config, "cpu", deploy=LocalDeployer(config, "cpu", {"vllm": VllmHost("cpu", host)}))
    evaluator.probe.read()
    yield evaluator
    evaluator.close()


@pytest.fixture(autouse=True)
def the_engine_goes_too(evaluator: Evaluator, nothing_of_ours_is_left: None) -> Iterator[None]:
    """Between two tests no engine stays, so that each can be asked what it left."""
    yield
    evaluator.stop_services()


def whisper_pids(evaluator: Evaluator) -> list[int]:
    whisper = evaluator.running.get("whisper")  # asked once: the evaluator may stop it meanwhile, in another thread
    return [] if whisper is None else whisper.pids()


def whisper_maps(evaluator: Evaluator, text: str) -> bool:
    for pid in whisper_pids(evaluator):
        try:
            if text in Path(f"/proc/{pid}/maps").read_text():
                return True
        except OSError:
            continue
    return False


def waiting_for(evaluator: Evaluator, service: str) -> bool:
    """Both services run, and this one owes an answer."""
    return len(evaluator.running) == 2 and evaluator.requests_under_way(service) > 0


@dataclass(frozen=True)
class Case:
    """One service, one moment, and what must come of it."""

    service: str
    moment: str
    kinds: tuple[FailureKind, ...]
    phases: tuple[Phase, ...]

    def __str__(self) -> str:
        return f"{self.service} while {self.moment}"


STARTED = (Phase.START,)
CASES = [
    Case("whisper", "starting", (FailureKind.STARTUP_CRASH,), STARTED),
    Case("whisper", "loading", (FailureKind.STARTUP_CRASH,), STARTED),
    Case("vllm", "starting", (FailureKind.STARTUP_CRASH,), STARTED),
    Case("vllm", "loading", (FailureKind.STARTUP_CRASH,), STARTED),
    Case("whisper", "under load", (FailureKind.SERVICE_LOST,), (Phase.LOAD,)),
    Case("vllm", "under load", (FailureKind.SERVICE_LOST,), (Phase.LOAD,)),
]


def moment_of(case: Case, evaluator: Evaluator, host: ForkServer) -> tuple[Callable[[], bool], Callable[[], Sequence[int]]]:
    """When to inject a fault, and into which processes."""
    whisper = {
        "starting": lambda: bool(whisper_pids(evaluator)),
        "loading": lambda: whisper_maps(evaluator, "libctranslate2"),
        "under load": lambda: waiting_for(evaluator, "whisper"),
    }
    vllm = {
        "starting": lambda: bool(engine_pids(host)),
        "loading": lambda: "Starting to load model" in engine_log(host),
        "under load": lambda: waiting_for(evaluator, "vllm"),
    }
    if case.service == "whisper":
        return whisper[case.moment], lambda: whisper_pids(evaluator)
    return vllm[case.moment], lambda: engine_pids(host)


def check_failed(found: Measurement, case: Case) -> None:
    assert found.status is Status.FAILED
    assert found.failure is not None
    assert found.failure.kind in case.kinds, found.failure
    assert found.failure.phase in case.phases, found.failure
    assert found.failure.service == case.service, found.failure
    assert found.metrics == {}, "no number of a candidate that was not measured"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed(case: Case, evaluator: Evaluator, host: ForkServer, rng: random.Random) -> None:
    moment, victims = moment_of(case, evaluator, host)
    with FaultInjector(moment, victims, signal.SIGKILL, rng.uniform(0.0, 0.2)) as injector:
        found = evaluator.evaluate(TINY)
    assert injector.injected, "the moment came"
    check_failed(found, case)


def test_out_of_memory_by_its_own_word(evaluator: Evaluator, host: ForkServer) -> None:
    """RLIMIT_AS, too small for the KV cache: the allocator says so, as CUDA's would."""
    with FaultInjector(lambda: "Starting to load model" in engine_log(host), lambda: engine_pids(host), no_more_address_space) as injector:
        found = evaluator.evaluate(TINY)
    assert injector.injected
    check_failed(found, Case("vllm", "", (FailureKind.STARTUP_OOM,), STARTED))
    assert found.failure is not None
    assert not found.failure.retryable


def test_killed_by_the_kernel_for_want_of_memory(evaluator: Evaluator) -> None:
    """A cgroup too small for the model: the process says nothing, the kernel's counter does, and that is another kind."""
    with (
        memory_cgroup(24) as confine,
        FaultInjector(lambda: bool(whisper_pids(evaluator)), lambda: whisper_pids(evaluator), confine) as injector,
    ):
        found = evaluator.evaluate(TINY)
    assert injector.injected
    check_failed(found, Case("whisper", "", (FailureKind.OOM_KILLED,), STARTED))
    assert found.failure is not None
    assert "oom_kill rose" in found.failure.evidence
    assert not found.failure.retryable


@pytest.mark.parametrize("one", ["APIServer", "EngineCore", pytest.param("Worker", marks=pytest.mark.soak)])
def test_one_process_of_vllm_stands_still_and_that_is_a_hang(evaluator: Evaluator, one: str, host: ForkServer) -> None:
    """Each alone: the API server answers nothing any more; behind a stopped core or worker it goes on answering its health check."""
    evaluator.begin(resolve(evaluator.config, TINY, "cpu"))
    (victim,) = {int(pid) for pid in re.findall(rf"\({one} pid=(\d+)\)", engine_log(host))}
    with stopped([victim]):
        began = time.monotonic()
        found = _rest(evaluator)
        took_s = time.monotonic() - began
    check_failed(found, Case("vllm", "", (FailureKind.SERVICE_HUNG,), (Phase.LOAD,)))
    assert took_s < evaluator.config.workload.request_timeout_s, "by the watch, not by the requests' time-out"


def test_whisper_stands_still_and_that_is_a_hang(evaluator: Evaluator) -> None:
    evaluator.begin(resolve(evaluator.config, TINY, "cpu"))
    with stopped(whisper_pids(evaluator)):
        found = _rest(evaluator)
    check_failed(found, Case("whisper", "", (FailureKind.SERVICE_HUNG,), (Phase.LOAD,)))


def _rest(evaluator: Evaluator) -> Measurement:
    try:
        evaluator.window()
        return evaluator.finish()
    except ServiceError as error:
        return evaluator.fail(error.failure)


def check_closed_to_others(evaluator: Evaluator, host: ForkServer) -> None:
    """Loopback only; each evaluation has keys of its own, and no command line shows one (`ps` shows those to everybody)."""
    endpoints = [service.endpoint for service in evaluator.running.values()]
    keys = {endpoint.key for endpoint in endpoints}
    assert len(keys) == 2
    listening = 0
    for pid in [*whisper_pids(evaluator), *engine_pids(host)]:
        try:
            process = psutil.Process(pid)
            line, connections = process.cmdline(), process.net_connections("inet")
        except psutil.NoSuchProcess:  # one of those that an engine starts for a moment (a zombie, too): it listens no more
            continue
        assert not any(key in part for key in keys for part in line)
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1"), (line, connection.laddr)
                listening += 1
    assert listening >= 2
    assert not any(key in log for key in keys for log in (service.log() for service in evaluator.running.values()))
    for url in (evaluator.running["vllm"].endpoint.url + "/v1/models", evaluator.running["whisper"].endpoint.url + "/health"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=10)


def test_killed_while_stopping_and_measured_all_the_same(
    evaluator: Evaluator, host: ForkServer, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement was made before: it stands, and the end is the same. This is also the candidate after all the broken ones.

    Nothing hangs here, so the measurement gets the patience that a busy machine may need: with the short time-out of the other cases, a
    healthy service that waits three seconds for a core counts as hung.
    """
    config = evaluator.config
    patient = replace(config, run=replace(config.run, hang_timeout_s=60.0), telemetry=replace(config.telemetry, max_invalid_windows=100))
    monkeypatch.setattr(evaluator, "config", patient)
    evaluator.begin(resolve(evaluator.config, TINY, "cpu"))
    evaluator.window()
    check_closed_to_others(evaluator, host)
    finishing = {"now": False}
    with FaultInjector(lambda: finishing["now"], lambda: whisper_pids(evaluator), signal.SIGKILL, rng.uniform(0.0, 0.1), one=rng):
        finishing["now"] = True
        found = evaluator.finish()
    assert found.status is Status.OK
    assert found.score is not None
    assert found.score.fitness is not None
    stopping = {"now": False}
    with FaultInjector(lambda: stopping["now"], lambda: engine_pids(host), signal.SIGKILL, rng.uniform(0.0, 0.3), one=rng):
        stopping["now"] = True
        evaluator.stop_services()
    assert engine_pids(host) == []


def test_a_fork_server_that_stands_still_is_given_up(tmp_path: Path, evaluator: Evaluator) -> None:
    """A real host without its imports, stopped in the middle: not the shared one, which would take everybody's imports with it."""
    code = "import sys; from tune_gpu.services.vllm import fork_server; fork_server.preload = lambda: None; fork_server.main(sys.argv[1])"
    own = ForkServer(dict(os.environ))
    own._folder = Path(tempfile.mkdtemp(prefix="tg-fork-"))
    address = own._folder / "control"
    own._process = ManagedProcess([sys.executable, "-c", code, str(address)], log=tmp_path / "log", env=os.environ, scratch=own._folder)
    own._started = time.monotonic()
    own._socket = own._connect(address, own._process)
    own._socket.settimeout(0.5)
    host_pid = own._process.pids()[0]
    with stopped([host_pid]), pytest.raises(ServiceError) as caught:
        own._ask({"op": "poll", "pid": 1})
    assert caught.value.failure.kind is FailureKind.SERVICE_HUNG
    assert own._process is None, "ended, so that the next launch brings up another"
    assert start_ticks(host_pid) is None
