"""A decision as a person reads it."""

from __future__ import annotations

from rich.console import Console

from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict

_STYLES = {DecisionVerdict.DEPLOY: "bold green", DecisionVerdict.KEEP: "bold", DecisionVerdict.MEASURE_LONGER: "bold yellow"}


def tell_decision(console: Console, decision: Decision) -> None:
    """Print the decision, and the command that comes next with the time that it takes."""
    console.print(f"decision: {decision.sentence}", style=_STYLES[decision.verdict], highlight=False, soft_wrap=True, markup=False)
    if decision.command:
        time = "" if decision.about_s is None else f" (about {duration_text(decision.about_s)})"
        console.print(f"  next: {decision.command}{time}", highlight=False, soft_wrap=True, markup=False)


def duration_text(seconds: float) -> str:
    """Return a time in words: `40 s`, `12 min`, `3 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"
