"""One evaluation on a card that is not here: NVML is made up, the two services are answering servers, the evaluation is the real one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.support.fake_nvml import OTHER, UUID, FakeNvml, Frame
from tests.support.servers import Behaviour, servers
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation import device_guard, load_session
from tune_gpu.evaluation.deployers import LocalDeployer
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement, Status
from tune_gpu.services.base import Service
from tune_gpu.services.registry import services_of
from tune_gpu.services.running import KV_CACHE_PCT
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.server import EngineInfo
from tune_gpu.telemetry import sampler
from tune_gpu.telemetry.nvml import NvmlProbe
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.window import warm_up

BEFORE = Frame({7: 512.0}, utilization=0, used_mib=700.0)
RUNNING = Frame({7: 512.0, 21: 1000.0, 32: 6000.0})
PARAMS = {"vllm_memory_util": 0.4, "whisper_model_size": "base"}
QUICK = [
    "run.preflight=false",
    "run.memory_timeout_s=1",
    "workload.windows=2",
    "workload.window_s=0.3",
    "workload.turn_rate_per_s=20",
    "workload.solo_window_s=0",
    "workload.capacity_step_s=0",
    "workload.audio.noise_snr_db=[null]",
    "objective.weights.capacity=0",
]


class Answering:
    """A service that has started: answers from the test's servers, and calls these processes its own."""

    def __init__(self, traffic: Traffic, pids: list[int], started: Callable[[], None]) -> None:
        self.endpoint = traffic.endpoints["vllm"]
        self._pids, self._started = pids, started
        self.info: EngineInfo | None = None
        self.start_s = 0.0
        self.printed = ""

    def start(self, abort: Callable[[], str | None] = lambda: None) -> Any:
        self._started()
        self.info = EngineInfo(0.0, 1000, 62, 16, 1.0, "made up")
        return self.info

    def failure(self) -> Failure | None:
        return None

    def pids(self) -> list[int]:
        return self._pids

    def log(self) -> str:
        return self.printed

    def healthy(self, timeout_s: float) -> bool:
        return True

    def gauges(self) -> dict[str, float]:
        return {KV_CACHE_PCT: 12.5}

    def stop(self) -> None:
        """It belongs to the test."""


class MadeUpCard:
    """Deploys onto a card whose frames change when the engine has started; Whisper has printed this by then."""

    def __init__(self, traffic: Traffic, nvml: FakeNvml, then: Frame, printed: str = "") -> None:
        self._traffic, self._nvml, self._then, self._printed = traffic, nvml, then, printed

    def visible_devices(self) -> str:
        return f"{UUID},{OTHER}"  # of which an engine on one card takes the first

    def prepare(self, services: Sequence[Service]) -> None:
        """Nothing can be prepared."""

    def wait_prepared(self) -> None:
        """Nothing is."""

    def make(self, service: Service) -> Answering:
        def appear() -> None:
            self._nvml._frames = [self._then]

        if service.name == "vllm":
            return Answering(self._traffic, [31, 32], appear)
        whisper = Answering(self._traffic, [21], lambda: None)
        whisper.printed = self._printed
        return whisper

    def close(self) -> None:
        """Nothing was started."""


Measure = Callable[..., Measurement]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measure]:
    """An evaluation on a card that shows this frame once both services run."""
    monkeypatch.setattr(sampler, "HZ", 100.0)
    behaviour = Behaviour(stt_s=0.001, first_token_s=0.001)
    with servers(behaviour) as traffic:

        def run(then: Frame, *overrides: str, printed: str = "", stt_status: int = 200, after: Frame = BEFORE, log: Callable[[str], None] = print) -> Measurement:
            behaviour.stt_status = stt_status
            nvml = FakeNvml([BEFORE])
            monkeypatch.setattr(device_guard, "open_probe", lambda kind, card: NvmlProbe(card, nvml))
            config = load_config("spica_gpu_allocation", [*QUICK, *overrides], "cuda")
            evaluator = Evaluator(config, "cuda", log=log, deploy=MadeUpCard(traffic, nvml, then, printed))
            measured = evaluator.evaluate(PARAMS)
            nvml._frames = [after]  # both have gone, their memory with them
            evaluator.close()
            return measured

        yield run


def test_on_its_card_and_undisturbed_it_has_energy_memory_and_neighbours(measure: Measure) -> None:
    found = measure(RUNNING)
    assert found.status is Status.OK, found.failure
    assert found.metrics["energy_per_request_j"] > 0
    assert found.metrics["service_memory_mib"] == {"whisper": 1000.0, "vllm": 6000.0}
    assert [(process["pid"], process["memory_mib"]) for process in found.metrics["neighbours"]["processes"]] == [(7, 512.0)]
    assert found.metrics["gpu_utilization"] == 90
    assert (found.metrics["trials_per_card"], found.metrics["n_invalid_windows"]) == (1, 0)


def test_which_card_of_which_node_it_was_measured_on_is_told_with_it(measure: Measure) -> None:
    for found in (measure(RUNNING), measure(RUNNING, printed=f"{NO_ROOM}\n", stt_status=500)):
        assert (found.measured_on["host"], found.measured_on["uuid"]) == (socket.gethostname(), UUID), found.status


@pytest.mark.parametrize(("device", "forks"), [("cuda", False), ("cpu", True)])
def test_engines_are_forked_on_the_cpu_only(device: str, forks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting's own value is true, and a user's space need not have the overlay that the shipped ones have."""
    made: list[ForkServer] = []
    monkeypatch.setattr(ForkServer, "prepare", lambda host: made.append(host))
    config = load_config("spica_gpu_allocation", ["run.warm_engine=true"], device)
    LocalDeployer(config, device).prepare(services_of(config.services))
    assert bool(made) is forks


NO_ROOM = "RuntimeError: CUDA failed with error out of memory"


def test_an_oom_that_whisper_survives_is_counted_from_its_log(measure: Measure) -> None:
    assert measure(RUNNING).metrics["oom_events"] == 0
    assert measure(RUNNING, printed=f"{NO_ROOM}\n").metrics["oom_events"] == 1, "once, not once a window"


def test_a_whisper_without_memory_for_any_request_is_out_of_memory(measure: Measure) -> None:
    found = measure(RUNNING, printed=f"{NO_ROOM}\n", stt_status=500)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.service, found.failure.evidence) == (FailureKind.OOM, "whisper", NO_ROOM)


def test_whisper_is_warmed_with_one_utterance_a_worker_at_once(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    workers: list[int] = []

    def noted(*given: Any, **named: Any) -> Any:
        workers.append(named.get("workers", 1))
        return warm_up(*given, **named)

    monkeypatch.setattr(load_session, "warm_up", noted)
    assert measure(RUNNING, "services.whisper.num_workers=3").status is Status.OK
    assert workers == [3, 1], "Whisper's, then the engine's"


def test_a_service_on_another_card_is_the_wrong_device_and_is_located(measure: Measure) -> None:
    found = measure(Frame({7: 512.0, 32: 6000.0}, elsewhere={21: 1000.0}))
    assert found.failure is not None
    assert (found.failure.kind, found.failure.service, found.failure.phase) == (FailureKind.WRONG_DEVICE, "whisper", Phase.START)
    assert OTHER in found.failure.message
    assert found.metrics == {}


def test_a_start_that_failed_has_taken_its_time(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise ServiceError(Failure(FailureKind.STARTUP_NO_KV_MEMORY, "vllm", Phase.START, "no room"))

    make = MadeUpCard.make
    monkeypatch.setattr(MadeUpCard, "make", lambda card, service: Answering(card._traffic, [32], no_room) if service.name == "vllm" else make(card, service))
    found = measure(RUNNING)
    assert found.failure is not None
    assert found.timings.start_s["vllm"] > 0.0
    assert not found.engine_reused


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (Frame(RUNNING.processes, reasons=0x40, temperature=94), "thermal throttling"),
        (Frame({**RUNNING.processes, 666: 300.0}), "process 666 of somebody else"),
    ],
)
def test_what_is_always_disturbed_is_no_measurement(measure: Measure, then: Frame, why: str) -> None:
    found = measure(then, "telemetry.max_invalid_windows=1")
    assert found.failure is not None
    assert (found.failure.kind, found.failure.retryable) == (FailureKind.MEASUREMENT_INVALID, True)
    assert why in found.failure.message
    assert "2 windows were disturbed (allowed 1)" in found.failure.message


def test_beside_other_trials_on_the_same_card_it_is_measured_and_says_so(measure: Measure) -> None:
    found = measure(Frame({**RUNNING.processes, 666: 300.0}), "ray.trials_per_card=2")
    assert found.status is Status.OK, found.failure
    assert found.metrics["trials_per_card"] == 2


ON_BOTH = Frame({7: 512.0, 21: 1000.0, 31: 6000.0}, elsewhere={32: 6000.0})
TWO = "services.vllm.tensor_parallel_size=2"


def test_an_engine_on_two_cards_is_measured_on_both(measure: Measure) -> None:
    found = measure(ON_BOTH, TWO)
    assert found.status is Status.OK, found.failure
    assert found.metrics["service_memory_mib"] == {"whisper": 1000.0, "vllm": 12000.0}
    assert (found.measured_on["uuid"], found.measured_on["total_mib"]) == (f"{UUID},{OTHER}", 2 * 12288.0)
    assert found.metrics["energy_per_request_j"] > 0
    assert measure(RUNNING).measured_on["uuid"] == UUID, "an engine on the first of them"


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (Frame(ON_BOTH.processes, elsewhere={32: 6000.0, 666: 300.0}), "process 666 of somebody else"),
        (Frame(ON_BOTH.processes, elsewhere=ON_BOTH.elsewhere, reasons_elsewhere=0x40), "thermal throttling"),
    ],
)
def test_what_disturbs_the_second_card_disturbs_the_measurement(measure: Measure, then: Frame, why: str) -> None:
    found = measure(then, TWO, "telemetry.max_invalid_windows=0")
    assert found.failure is not None
    assert found.failure.kind is FailureKind.MEASUREMENT_INVALID
    assert why in found.failure.message


@pytest.mark.parametrize(
    ("then", "service"),
    [(Frame({21: 1000.0, 31: 6000.0, 32: 6000.0}), "vllm"), (Frame({31: 6000.0}, elsewhere={32: 6000.0, 21: 1000.0}), "whisper")],
)
def test_an_engine_must_be_on_all_its_cards_and_whisper_on_the_first(measure: Measure, then: Frame, service: str) -> None:
    found = measure(then, TWO)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.service) == (FailureKind.WRONG_DEVICE, service)


def test_memory_that_stays_on_the_second_card_is_told(measure: Measure) -> None:
    messages: list[str] = []
    left = Frame({7: 512.0}, utilization=0, used_mib=700.0, used_elsewhere_mib=3000.0)
    assert measure(ON_BOTH, TWO, after=left, log=messages.append).status is Status.OK
    assert messages == ["2300 MiB of the card have not come back after the engine ended"]


def test_a_second_card_that_does_not_answer_is_a_failure_of_the_candidate(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUpCard, "visible_devices", lambda _card: f"{UUID},GPU-gone")
    found = measure(ON_BOTH, TWO)
    assert found.failure is not None
    assert (found.failure.kind, found.measured_on["uuid"]) == (FailureKind.WRONG_DEVICE, UUID)
    assert "no card GPU-gone here" in found.failure.message
