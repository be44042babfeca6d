"""Anchors: deploy the baseline once more after the search, to show how much one configuration differs between its deployments (A/A).

The tournament does not use them. Each is a trial of the same kind as a candidate's, but in a new actor, so that it starts a new engine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailedAttempt
from tune_gpu.common.wording import counted, failure_text
from tune_gpu.experiment.listener import RunListener
from tune_gpu.experiment.results import ResultKeeper
from tune_gpu.ray_tune.client import forward_results
from tune_gpu.search.tournament import Candidate

ORIGIN = "anchor"
_LEVEL = 1.96
"""Two deployments that differ only by the errors within them are at most this many combined standard errors apart, in 95 of 100 cases."""
_SKIPPED = {
    RunEnd.INTERRUPTED: "the run was interrupted",
    RunEnd.TIME_BUDGET: "the run's time budget is over",
    RunEnd.SAME_FAILURE: "no candidate starts",
}

MakeTuner = Callable[[Sequence[Candidate], tune.Callback], tune.Tuner]


class Anchors:
    """The further deployments of the baseline of one run.

    Args:
        n_wanted: number of deployments (`search.anchors`).
        results: stores the results.
        progress: notified when a deployment begins.
    """

    def __init__(self, n_wanted: int, results: ResultKeeper, progress: RunListener) -> None:
        self._n_wanted, self._results, self._progress = n_wanted, results, progress
        self._why_not = ""

    def measure(self, ended: RunEnd, left_s: Callable[[], float | None], tuner: MakeTuner) -> RunEnd:
        """Measure the missing deployments, and return why the run ended. An interruption may end it here.

        Args:
            ended: why the search ended.
            left_s: returns the seconds left of the time budget, or None without a budget.
            tuner: makes the Tuner for a list of candidates.
        """
        first, still = first_deployment(self._results.lines), left_s()
        missing = self._missing(first)
        if first is None or not missing:
            return ended
        if (why := _SKIPPED.get(ended)) or (still is not None and still < (first.wall_s or 0.0)):
            self._why_not = why or f"the run's time budget leaves {still:.0f} s, and the baseline took {first.wall_s:.0f} s"
            return ended
        self._progress.note(f"deploying the baseline {_times(len(missing))} more, to show how much one configuration differs between its deployments …")
        with forward_results(_nothing, self._received, self._progress.note, _nothing) as callback:
            tuner(missing, callback).fit()
        if not self._missing(first):
            return ended
        # Tune handles Ctrl-C itself and returns as if nothing had happened.
        interrupted = left_s() != 0.0
        self._why_not = _SKIPPED[RunEnd.INTERRUPTED if interrupted else RunEnd.TIME_BUDGET]
        return RunEnd.INTERRUPTED if interrupted else ended

    @property
    def sentence(self) -> str | None:
        """Return a sentence on what the deployments show, or on why there are none. None if none were requested."""
        return describe_anchors(self._results.lines, self._results.anchors, self._why_not)

    def _missing(self, first: EvaluationRecord | None) -> list[Candidate]:
        lines, done = self._results.lines, len(self._results.anchors)
        if first is None:
            return []
        generation = max(line.generation for line in lines)
        return [Candidate(f"anchor-{number}", generation, ORIGIN, dict(first.params), len(lines)) for number in range(done + 1, self._n_wanted + 1)]

    def _received(self, candidate: Candidate, line_json: str | None, causes: list[FailedAttempt]) -> None:
        self._results.received_anchor(candidate, line_json, causes)


def first_deployment(lines: Sequence[EvaluationRecord]) -> EvaluationRecord | None:
    """Return the baseline's evaluation of generation 0; None without a baseline, and if it has no fitness to compare with."""
    return next((line for line in lines if line.origin == "baseline" and line.fitness is not None), None)


def describe_anchors(lines: Sequence[EvaluationRecord], anchors: Sequence[EvaluationRecord], why_not: str = "") -> str | None:
    """Return a sentence on the noise that all deployments of the baseline show, or None if there is nothing to report.

    Args:
        lines: lines of the candidates. The baseline may have been evaluated again, as an elite.
        anchors: further deployments of the baseline.
        why_not: why some are missing; "" if none is missing.
    """
    first = first_deployment(lines)
    measured = [line for line in anchors if line.fitness is not None]
    if first is None or not (anchors or why_not):
        return None
    known = [*(line for line in lines if line.params == first.params and line.fitness is not None), *measured]
    missing = "" if measured else f"it was not deployed again at the end: {why_not}" if why_not else f"deployed again at the end it was not measured ({_reason(anchors[-1])})"
    if len(known) > 1:
        return _difference(known) + (f"; {missing}" if missing else "")
    if why_not:
        return f"the baseline was not deployed again at the end, so it is not known how much one configuration differs between its deployments: {why_not}"
    return f"the baseline deployed {_times(1 + len(anchors))}: fitness {first.known_fitness:.4f} at first, no measurement after that ({_reason(anchors[-1])})"


def _reason(failed: EvaluationRecord) -> str:
    if failed.failure is None:
        return "violates " + ", ".join(failed.violations)
    return f"{failed.failure.kind}, {failure_text(failed.failure.message, failed.failure.evidence)}"


def _difference(measured: Sequence[EvaluationRecord]) -> str:
    values = [line.known_fitness for line in measured]
    text = f"{', '.join(f'{value:.4f}' for value in values[:-1])} and {values[-1]:.4f}"
    found = f"the baseline deployed {_times(len(values))}: fitness {text}; its deployments alone differ by {'up to ' if len(values) > 2 else ''}{max(values) - min(values):.4f}"
    errors = [line.repeat_stderr for line in measured]
    if len(values) > 2:
        return f"{found} (standard deviation {statistics.stdev(values):.4f})"
    if None in errors:
        return found
    return f"{found}, and the errors within them explain up to {_LEVEL * math.hypot(*(error or 0.0 for error in errors)):.4f}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number) or counted(number, "time")


def _nothing(_ignored: Any) -> None:
    """Ignore an event that only a search needs."""
