"""The interface between a run and its progress display."""

from __future__ import annotations

from typing import Protocol

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.search.tournament import Candidate


class RunListener(Protocol):
    """Shows the progress of a run: a table on a terminal, or plain lines."""

    def began(self, candidate: Candidate) -> None:
        """Show that a candidate's evaluation has begun."""

    def ended(self, line: EvaluationRecord, *, replayed: bool = False) -> None:
        """Show the result of an evaluation; `replayed` if it was measured before the run was resumed."""

    def note(self, line: str) -> None:
        """Show any other line."""
