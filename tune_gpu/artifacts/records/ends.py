"""How a run and a comparison end. The values are stored in `summary.json` and `comparison.json`."""

from __future__ import annotations

from enum import StrEnum

from tune_gpu.search.ending import Ended


class RunEnd(StrEnum):
    """Why a run stopped proposing or measuring."""

    GENERATIONS = Ended.GENERATIONS.value
    SPACE_EXHAUSTED = Ended.SPACE_EXHAUSTED.value
    TIME_BUDGET = "time budget"
    INTERRUPTED = "interrupted"
    SAME_FAILURE = "same failure"
    """All candidates failed to start for the same reason."""


class ComparisonEnd(StrEnum):
    """Why a comparison stopped measuring rounds."""

    DECIDED = "decided"
    ROUNDS = "rounds"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
