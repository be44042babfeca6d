"""How a run and a comparison end. The values stand in `summary.json` and `comparison.json`."""

from __future__ import annotations

from enum import StrEnum

from tune_gpu.search.ending import Ended


class RunEnd(StrEnum):
    """Why a run proposed or measured no more."""

    GENERATIONS = Ended.GENERATIONS.value
    SPACE_EXHAUSTED = Ended.SPACE_EXHAUSTED.value
    TIME_BUDGET = "time budget"
    INTERRUPTED = "interrupted"
    SAME_FAILURE = "same failure"
    """Every candidate failed to start for one reason."""


class ComparisonEnd(StrEnum):
    """Why a comparison measured no more rounds."""

    DECIDED = "decided"
    ROUNDS = "rounds"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
