"""Which failures are retried, and what is kept of a failed attempt. Pure. Ray retries (`FailureConfig`), in a new actor on a clean device."""

from __future__ import annotations

from collections.abc import Sequence

from tune_gpu.artifacts.records.evaluation import FailedAttempt
from tune_gpu.common.failures import Failure, FailureKind

LOST = FailedAttempt(kind=str(FailureKind.SERVICE_LOST), service="tune_gpu", phase="load", message="the trial's own process ended without a result")


def may_retry(failure: Failure, before: Sequence[FailedAttempt], max_retries: int) -> bool:
    """Return whether a trial that failed so, after these attempts, is retried: only what can pass, and a start that timed out only once."""
    if not failure.retryable or len(before) >= max_retries:
        return False
    return failure.kind is not FailureKind.STARTUP_TIMEOUT or all(attempt.kind != failure.kind for attempt in before)


def attempt_of(failure: Failure, wall_s: float) -> FailedAttempt:
    """Return the failed attempt for the artifacts."""
    return FailedAttempt(
        kind=str(failure.kind), service=failure.service, phase=str(failure.phase), message=failure.message, wall_s=round(wall_s, 3)
    )  # fmt: skip
