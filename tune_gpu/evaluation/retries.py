"""Which failures are tried again, and what is kept of it: pure. Ray tries again (`FailureConfig`), in a new actor on a clean device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind

Cause = Mapping[str, Any]
"""Why an attempt was given up: kind, service, phase, message, wall_s."""

LOST: Cause = {
    "kind": str(FailureKind.SERVICE_LOST),
    "service": "tune_gpu",
    "phase": "load",
    "message": "the trial's own process ended without a result",
    "wall_s": None,
}


def may_retry(failure: Failure, before: Sequence[Cause], max_retries: int) -> bool:
    """Return whether a trial that has failed so, after these attempts, is tried again: only what can pass, and a start that timed out only once."""
    if not failure.retryable or len(before) >= max_retries:
        return False
    return failure.kind is not FailureKind.STARTUP_TIMEOUT or all(cause["kind"] != failure.kind for cause in before)


def cause_of(failure: Failure, wall_s: float) -> Cause:
    """For the artifacts."""
    return {
        "kind": str(failure.kind),
        "service": failure.service,
        "phase": str(failure.phase),
        "message": failure.message,
        "wall_s": round(wall_s, 3),
    }
