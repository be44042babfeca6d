"""Print a decision for the user."""

from __future__ import annotations

import textwrap

from rich.console import Console

from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict

_STYLES = {DecisionVerdict.DEPLOY: "bold green", DecisionVerdict.KEEP: "bold", DecisionVerdict.MEASURE_LONGER: "bold yellow"}


def print_sentence(console: Console, text: str, style: str | None = None, indent: int = 0) -> None:
    """Print a sentence. On a terminal it is wrapped between words and further lines are indented; elsewhere it is one line."""
    text = " " * indent + text
    if console.is_terminal:
        text = textwrap.fill(text, console.width, subsequent_indent=" " * (indent + 2), break_long_words=False, break_on_hyphens=False)
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def print_decision(console: Console, decision: Decision) -> None:
    """Print the decision, and the next command with its duration."""
    print_sentence(console, f"decision: {decision.sentence}", style=_STYLES[decision.verdict])
    if decision.next_step:  # not wrapped, because users copy it
        console.print(f"  next: {decision.next_step}", highlight=False, soft_wrap=True, markup=False)


def print_findings(console: Console, decision: Decision) -> None:
    """Print all compared metrics, grouped by what is shown about them."""
    for name, text in decision.group_texts:
        print_sentence(console, f"{name}: {text}", indent=2)
    if decision.groups:
        print_sentence(console, f"rests on: {decision.basis}", indent=2)
