"""A start that fails for the same reason whatever the candidate ends a run: going on would only repeat it."""

from __future__ import annotations

import json
import re
from typing import Any

from ray.tune import Stopper

from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailureRecord
from tune_gpu.common.failures import FailureKind, Phase, Status
from tune_gpu.common.wording import failure_text

_CANDIDATES = 2
"""So many different configurations must fail alike."""
_OF_ITS_SIZE = frozenset(
    {FailureKind.STARTUP_NO_KV_MEMORY, FailureKind.STARTUP_OOM, FailureKind.OOM, FailureKind.OOM_KILLED, FailureKind.INFEASIBLE}
)
"""Kinds that depend on the candidate: a smaller one may fit."""
_MEMORY = re.compile(r"\bsignal 9\b|\bSIGKILL\b|(?:out of|not enough|insufficient) (?:\w+ )?memory", re.IGNORECASE)
"""The same in words, where the kind does not tell: the kernel may have killed it, or a message is of a version that is not known yet."""
_VARIES = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"(?<![\w<])[~.]{0,2}/[^\s'\",;:()\[\]{}<>]*"), "<path>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,})\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<!exit code )(?<!signal )(?<![\w.-])-?\d+(?:[.,:]\d+)*|(?<=[A-Za-z_-])\d+"), "<n>"),
    (re.compile(r"\s+"), " "),
)
"""What differs between two messages of one reason: colours, paths, ids, and numbers (ports, process ids, times), but not the exit code."""


class SameFailure:
    """Listens to a run's lines, each of which may come more than once.

    Retryable failures and refusals before the launch say nothing here. Anything else that is not the same start failure, a measurement
    above all, shows that the reason depends on the candidate.
    """

    def __init__(self) -> None:
        self._heard: set[str] = set()
        self._failed: set[str] = set()
        self._reason: tuple[str, ...] | None = None
        self._failure: FailureRecord | None = None
        self._differs = False

    def hear(self, line: EvaluationRecord) -> None:
        """One evaluation has ended."""
        if line.candidate_id in self._heard or line.transient or line.status == Status.INFEASIBLE:
            return
        self._heard.add(line.candidate_id)
        reason = reason_of(line.failure) if line.failure else None
        if reason is None or self._reason not in (None, reason):
            self._differs = True
            return
        self._reason, self._failure = reason, line.failure
        self._failed.add(json.dumps(line.params, sort_keys=True, default=repr))

    @property
    def said(self) -> str | None:
        """The reason, for people; null unless every candidate so far has failed for it, and they are two or more."""
        if self._failure is None or self._differs or len(self._failed) < _CANDIDATES:
            return None
        return f"{self._failure.service}: {failure_text(self._failure.message, self._failure.evidence)}"


class StopOnSameFailure(Stopper):
    """Ends a Tune run in which nothing starts. Wherever the run's controller lives (on a cluster with `ray://`), it hears each report there."""

    def __init__(self, failures: SameFailure) -> None:
        self._failures = failures

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Listen to the last report of a trial; the trial itself is not stopped."""
        if result.get("done") and result.get("line_json"):
            self._failures.hear(EvaluationRecord.parse(json.loads(result["line_json"]), f"trial {trial_id}"))
        return False

    def stop_all(self) -> bool:
        """Return whether the run ends."""
        return self._failures.said is not None


def reason_of(failure: FailureRecord) -> tuple[str, ...] | None:
    """Return what two failures of one reason have in common; null for one that another candidate may not meet."""
    text = f"{failure.message}\n{failure.evidence}"
    if failure.phase != Phase.START or failure.kind in _OF_ITS_SIZE or failure.retryable or _MEMORY.search(text):
        return None
    for pattern, common in _VARIES:
        text = pattern.sub(common, text)
    return failure.kind, failure.service, text.strip()
