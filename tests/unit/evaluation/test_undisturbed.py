"""A window that was disturbed is measured again, a bounded number of times; a service on another card is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.scoring import energy_per_request_j
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.experiment.checks import check_config
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.telemetry.sampler import DeviceStats
from tune_gpu.telemetry.verdicts import VerdictKind, WindowVerdict
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.window import WindowResult

GOOD = DeviceStats(50.0, 100.0, {}, 0, 10, energy_j=120.0)
HOT = DeviceStats(50.0, 100.0, {}, 0, 10, verdicts=(WindowVerdict(VerdictKind.THERMAL_THROTTLING, "hot"),))
AWAY = DeviceStats(50.0, 100.0, {}, 0, 10, verdicts=(WindowVerdict(VerdictKind.WRONG_DEVICE, "whisper is not there"),))
LATE = WindowResult("mixed", lag_ms=[10_000.0])


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    evaluator = Evaluator(load_config("spica_gpu_allocation", ["telemetry.max_invalid_windows=2"], "cpu"), "cpu")
    whisper = WhisperService(evaluator.config.services.whisper, device="cpu", port_range=[20000, 29999])
    evaluator._running = EvaluationState({}, whisper)
    yield evaluator
    evaluator.close()


def play(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, *windows: tuple[WindowResult, DeviceStats]) -> list[int]:
    """The windows that the load and the device give, one after another; returns the indices that were measured."""
    measured: list[int] = []
    tape = iter(windows)

    def take(index: int, mode: str, seconds: float | None) -> tuple[WindowResult, DeviceStats]:
        measured.append(index)
        return next(tape)

    monkeypatch.setattr(evaluator, "_measured", take)
    return measured


def test_a_disturbed_window_is_measured_again_with_the_same_traffic(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = play(evaluator, monkeypatch, (WindowResult("mixed"), HOT), (LATE, GOOD), (WindowResult("mixed"), GOOD))
    assert evaluator._undisturbed(4, "mixed")[1] is GOOD
    assert measured == [4, 4, 4]
    assert evaluator._now().n_invalid == 2


def test_disturbed_once_too_often_it_is_no_measurement_and_says_what_disturbed(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = play(evaluator, monkeypatch, *[(WindowResult("mixed"), HOT)] * 9)
    with pytest.raises(ServiceError, match="3 windows were disturbed") as caught:
        evaluator._undisturbed(0, "mixed")
    assert caught.value.failure.kind is FailureKind.MEASUREMENT_INVALID
    assert len(measured) == 3
    assert "hot" in caught.value.failure.message


def test_a_service_on_another_card_is_not_measured_a_second_time(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = play(evaluator, monkeypatch, *[(WindowResult("mixed"), AWAY)] * 2)
    with pytest.raises(ServiceError, match="whisper is not there") as caught:
        evaluator._undisturbed(0, "mixed")
    assert caught.value.failure.kind is FailureKind.WRONG_DEVICE
    assert not caught.value.failure.retryable
    assert len(measured) == 1


def test_energy_is_shared_among_the_answered_requests_and_absent_where_no_power_is_told() -> None:
    nobody = summarise([WindowResult("mixed")])
    assert energy_per_request_j([GOOD], nobody) is None
    some = replace(nobody, n_requests=7, n_failed=1)
    assert energy_per_request_j([GOOD, GOOD], some) == 40.0
    assert energy_per_request_j([GOOD, HOT], some) is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("telemetry.max_invalid_windows=-1", "telemetry.max_invalid_windows=-1: allowed is 0 or more"),
        ("telemetry.max_throttled_share=0", "telemetry.max_throttled_share"),
        ("telemetry.max_clock_fall_share=1.5", "above 0 and at most 1"),
        ("telemetry.hz=3", "no such key"),
    ],
)
def test_bad_limits_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(load_config("spica_gpu_allocation", [override], "cpu"))
