"""What became of the turns of a plan: offered, answered, cut by the end of a window, cancelled by their callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune_gpu.metrics import ACHIEVED_TURNS, CANCELLED, CENSORED_TURNS, OFFERED_TURNS, WASTED_TOKENS
from tune_gpu.workload.window import WindowResult


@dataclass(frozen=True)
class Flow:
    """Counts over one or more windows."""

    offered: int
    """Turns that became due. Of sessions these are fewer where a candidate is slow, because a caller waits for the answer before the next turn."""
    achieved: int
    """Turns that were answered without an error."""
    censored: int | None = None
    """Turns that the end of their window cut. These and the next are None without sessions."""
    cancelled: int | None = None
    """Requests that callers cancelled or threw away."""
    wasted_tokens: int | None = None
    """Tokens that arrived for those."""

    def as_metrics(self) -> dict[str, int | None]:
        """Return the counts under their names in the artifacts."""
        return {
            OFFERED_TURNS.name: self.offered, ACHIEVED_TURNS.name: self.achieved, CENSORED_TURNS.name: self.censored, CANCELLED.name: self.cancelled,
            WASTED_TOKENS.name: self.wasted_tokens,
        }  # fmt: skip


def flow_of(windows: Sequence[WindowResult]) -> Flow:
    """Return what became of the turns of these windows. What a censored turn cancelled or wasted counts, too."""
    turns = [turn for window in windows for turn in window.turns]
    achieved = sum(turn.error is None for turn in turns)
    if all(window.planned is None for window in windows):
        return Flow(len(turns), achieved)
    censored = [turn for window in windows for turn in window.censored]
    begun = [*turns, *censored]
    return Flow(len(begun), achieved, len(censored), sum(turn.n_cancelled for turn in begun), sum(turn.wasted_tokens for turn in begun))
