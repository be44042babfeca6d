"""What became of the turns of sessions, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune_gpu.workload.flow import flow_of
from tune_gpu.workload.sessions.filling import Filling
from tune_gpu.workload.window import WindowResult


def achieved_of(windows: Sequence[WindowResult], fillings: Sequence[Filling] = ()) -> dict[str, Any] | None:
    """Return the counts of windows of sessions as the artifacts have them; None for windows without sessions.

    `planned` are the turns of the plan, which has more than a window can hold; `offered` are those that became due; `achieved` were answered.
    """
    if all(window.planned is None for window in windows):
        return None
    turns, flow = [turn for window in windows for turn in window.turns], flow_of(windows)
    return {
        "planned": sum(window.planned or 0 for window in windows),
        "offered": flow.offered,
        "achieved": flow.achieved,
        "shed": sum(turn.shed for turn in turns),
        "censored": flow.censored,
        "interrupted": sum(turn.interrupted for turn in turns),
        "filling": {
            "requests": sum(filling.requests for filling in fillings),
            "failed": sum(filling.failed for filling in fillings),
            "prompt_tokens": sum(filling.prompt_tokens or 0 for filling in fillings) if all(f.prompt_tokens is not None for f in fillings) else None,
            "seconds": round(sum(filling.seconds for filling in fillings), 3),
        },
    }
