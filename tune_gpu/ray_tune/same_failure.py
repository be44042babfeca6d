"""End a run in which every start fails for the same reason, because further candidates would only repeat it."""

from __future__ import annotations

import json
import re
from typing import Any

from ray.tune import Stopper

from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailureRecord
from tune_gpu.common.failures import FailureKind, Phase, Status
from tune_gpu.common.wording import failure_text

_CANDIDATES = 2
"""Number of different configurations that must fail for the same reason."""
_OF_ITS_SIZE = frozenset(
    {FailureKind.STARTUP_NO_KV_MEMORY, FailureKind.STARTUP_OOM, FailureKind.OOM, FailureKind.OOM_KILLED, FailureKind.INFEASIBLE}
)
"""Kinds of failure that depend on the candidate's size: a smaller one may fit."""
_MEMORY = re.compile(r"\bsignal 9\b|\bSIGKILL\b|(?:out of|not enough|insufficient) (?:\w+ )?memory", re.IGNORECASE)
"""Signs of the same kinds in the text of another kind: the kernel may have killed the process, or the message may be from an unknown
version."""
_VARIES = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"(?<![\w<])[~.]{0,2}/[^\s'\",;:()\[\]{}<>]*"), "<path>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,})\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<!exit code )(?<!signal )(?<![\w.-])-?\d+(?:[.,:]\d+)*|(?<=[A-Za-z_-])\d+"), "<n>"),
    (re.compile(r"\s+"), " "),
)
"""Parts that differ between two messages with the same reason: colours, paths, ids, and numbers (ports, process ids, times), but not the
exit code."""


class SameFailure:
    """Detects that all candidates of a run fail for the same reason. A record may be observed more than once.

    Retryable failures and refusals before the launch do not count. Any other result, in particular a measurement, shows that the reason
    depends on the candidate.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._failed: set[str] = set()
        self._reason: tuple[str, ...] | None = None
        self._failure: FailureRecord | None = None
        self._differs = False

    def observe(self, line: EvaluationRecord) -> None:
        """Count an evaluation that has ended."""
        if line.candidate_id in self._seen or line.transient or line.status == Status.INFEASIBLE:
            return
        self._seen.add(line.candidate_id)
        reason = reason_of(line.failure) if line.failure else None
        if reason is None or self._reason not in (None, reason):
            self._differs = True
            return
        self._reason, self._failure = reason, line.failure
        self._failed.add(json.dumps(line.params, sort_keys=True, default=repr))

    @property
    def reason(self) -> str | None:
        """Return the reason as text if at least two candidates have ended and all of them failed for that reason, else None."""
        if self._failure is None or self._differs or len(self._failed) < _CANDIDATES:
            return None
        return f"{self._failure.service}: {failure_text(self._failure.message, self._failure.evidence)}"


class StopOnSameFailure(Stopper):
    """Stops a Tune run in which no candidate starts. It runs beside Tune's controller (on the cluster with `ray://`) and gets each report
    there."""

    def __init__(self, failures: SameFailure) -> None:
        self._failures = failures

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Count the last report of a trial. Never stop the trial itself."""
        if result.get("done") and result.get("line_json"):
            self._failures.observe(EvaluationRecord.parse(json.loads(result["line_json"]), f"trial {trial_id}"))
        return False

    def stop_all(self) -> bool:
        """Return whether the run ends."""
        return self._failures.reason is not None


def reason_of(failure: FailureRecord) -> tuple[str, ...] | None:
    """Return a key that is equal for failures with the same reason, or None for a failure that depends on the candidate."""
    text = f"{failure.message}\n{failure.evidence}"
    if failure.phase != Phase.START or failure.kind in _OF_ITS_SIZE or failure.retryable or _MEMORY.search(text):
        return None
    for pattern, common in _VARIES:
        text = pattern.sub(common, text)
    return failure.kind, failure.service, text.strip()
