"""A decision as a person reads it."""

from __future__ import annotations

import textwrap

from rich.console import Console

from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict

_STYLES = {DecisionVerdict.DEPLOY: "bold green", DecisionVerdict.KEEP: "bold", DecisionVerdict.MEASURE_LONGER: "bold yellow"}


def print_sentence(console: Console, text: str, style: str | None = None, indent: int = 0) -> None:
    """Print a sentence: on a terminal broken between words, with the rest of it indented, elsewhere in one line."""
    text = " " * indent + text
    if console.is_terminal:
        text = textwrap.fill(text, console.width, subsequent_indent=" " * (indent + 2), break_long_words=False, break_on_hyphens=False)
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def print_decision(console: Console, decision: Decision) -> None:
    """Print the decision, and the command that comes next with the time that it takes."""
    print_sentence(console, f"decision: {decision.sentence}", style=_STYLES[decision.verdict])
    if decision.next_step:  # not broken, because it is copied
        console.print(f"  next: {decision.next_step}", highlight=False, soft_wrap=True, markup=False)


def print_findings(console: Console, decision: Decision) -> None:
    """Print every metric that was compared, by what is shown of it; nothing if none was."""
    for name, text in decision.group_texts:
        print_sentence(console, f"{name}: {text}", indent=2)
    if decision.groups:
        print_sentence(console, f"rests on: {decision.basis}", indent=2)
