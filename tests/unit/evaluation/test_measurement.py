"""Impossible outcomes cannot be made."""

from __future__ import annotations

import pytest

from tune_gpu.common.failures import RETRYABLE, Failure, FailureKind, Phase
from tune_gpu.evaluation.measurement import Measurement, Score, Status

OOM = Failure(FailureKind.STARTUP_OOM, "vllm", Phase.START, "too much")


def test_a_failure_has_no_numbers() -> None:
    with pytest.raises(ValueError, match="a number is a measurement or it is absent"):
        Measurement(Status.FAILED, "cpu", failure=OOM, metrics={"llm_latency_ms": 999.0})


def test_a_good_measurement_has_windows_and_no_failure() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        Measurement(Status.OK, "cpu")
    with pytest.raises(ValueError, match="carries no failure"):
        Measurement(Status.OK, "cpu", failure=OOM, n_windows=1)
    with pytest.raises(ValueError, match="needs a failure"):
        Measurement(Status.FAILED, "cpu")


def test_a_good_measurement_and_no_other_has_a_score() -> None:
    with pytest.raises(ValueError, match="a measurement that is ok needs a score"):
        Measurement(Status.OK, "cpu", n_windows=1)
    with pytest.raises(ValueError, match="a measurement that is failed has no score"):
        Measurement(Status.FAILED, "cpu", failure=OOM, score=Score(0.5))


def test_refused_before_launch_is_infeasible_and_later_is_failed() -> None:
    refused = Failure(FailureKind.INFEASIBLE, "vllm", Phase.PREFLIGHT, "does not fit")
    assert Measurement.failed(refused, "cpu").status is Status.INFEASIBLE
    assert Measurement.failed(OOM, "cpu").status is Status.FAILED


def test_only_what_can_pass_on_a_second_try_is_retryable() -> None:
    assert not OOM.retryable
    assert {str(kind) for kind in RETRYABLE} == {"port_conflict", "startup_timeout", "service_lost", "measurement_invalid"}
