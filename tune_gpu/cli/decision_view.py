"""A decision as a person reads it."""

from __future__ import annotations

from rich.console import Console

from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict

_STYLES = {DecisionVerdict.DEPLOY: "bold green", DecisionVerdict.KEEP: "bold", DecisionVerdict.MEASURE_LONGER: "bold yellow"}


def print_decision(console: Console, decision: Decision) -> None:
    """Print the decision, and the command that comes next with the time that it takes."""
    console.print(f"decision: {decision.sentence}", style=_STYLES[decision.verdict], highlight=False, soft_wrap=True, markup=False)
    if decision.next_step:
        console.print(f"  next: {decision.next_step}", highlight=False, soft_wrap=True, markup=False)
