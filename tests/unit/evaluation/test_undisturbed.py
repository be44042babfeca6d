"""A disturbed window is measured again, a bounded number of times; a service on another card is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.config.loader import load_config
from tune_gpu.evaluation.load_session import undisturbed
from tune_gpu.evaluation.scoring import energy_per_request_j
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.experiment.checks import check_config
from tune_gpu.telemetry.sampler import DeviceStats
from tune_gpu.telemetry.verdicts import VerdictKind, WindowVerdict
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.window import WindowResult

GOOD = DeviceStats(50.0, 100.0, {}, 0, 10, energy_j=120.0)
HOT = DeviceStats(50.0, 100.0, {}, 0, 10, verdicts=(WindowVerdict(VerdictKind.THERMAL_THROTTLING, "hot"),))
AWAY = DeviceStats(50.0, 100.0, {}, 0, 10, verdicts=(WindowVerdict(VerdictKind.WRONG_DEVICE, "whisper is not there"),))
LATE = WindowResult("mixed", lag_ms=[10_000.0])


def test_a_disturbed_window_is_measured_again_until_it_counts() -> None:
    state, tape = EvaluationState({}), iter([(WindowResult("mixed"), HOT), (LATE, GOOD), (WindowResult("mixed"), GOOD), (LATE, HOT)])
    assert undisturbed(lambda: next(tape), state, 2) == (WindowResult("mixed"), GOOD)
    assert state.n_invalid == 2
    assert next(tape) == (LATE, HOT), "nothing is measured beyond the window that counts"


def test_one_disturbed_window_too_many_is_an_invalid_measurement() -> None:
    """The limit holds for the evaluation, not for the window: what the windows before used up is gone."""
    state, tape = EvaluationState({}, n_invalid=1), iter([(WindowResult("mixed"), HOT)] * 2)
    with pytest.raises(ServiceError, match=r"3 windows were disturbed \(allowed 2\); the last: .*hot") as caught:
        undisturbed(lambda: next(tape), state, 2)
    assert caught.value.failure.kind is FailureKind.MEASUREMENT_INVALID


def test_a_service_on_another_card_is_not_measured_a_second_time() -> None:
    tape = iter([(WindowResult("mixed"), AWAY)])
    with pytest.raises(ServiceError, match="whisper is not there") as caught:
        undisturbed(lambda: next(tape), EvaluationState({}), 2)
    assert caught.value.failure.kind is FailureKind.WRONG_DEVICE
    assert not caught.value.failure.retryable


def test_energy_is_per_answered_request_and_absent_without_power() -> None:
    nobody = summarise([WindowResult("mixed")])
    assert energy_per_request_j([GOOD], nobody) is None
    some = replace(nobody, n_requests=7, n_failed=1)
    assert energy_per_request_j([GOOD, GOOD], some) == 40.0
    assert energy_per_request_j([GOOD, HOT], some) is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("telemetry.max_invalid_windows=-1", "telemetry.max_invalid_windows=-1: out of range. Set a number of at least 0"),
        ("telemetry.max_throttled_share=0", "telemetry.max_throttled_share"),
        ("telemetry.max_clock_fall_share=1.5", "above 0 and at most 1"),
        ("telemetry.hz=3", "no such key"),
    ],
)
def test_bad_limits_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(load_config("spica_gpu_allocation", [override], "cpu"))
