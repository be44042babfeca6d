"""Print the progress and the result of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from tune_gpu.common.metric import least_samples
from tune_gpu.common.wording import counted
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.verdict import Finding
from tune_gpu.metrics import VOICE_TURN

PrintLine = Callable[[str], None]


class ProgressReporter:
    """Print each replicate as it begins and ends, with the used part of the budget."""

    def __init__(self, print_line: PrintLine, budget_s: float, spent_s: float = 0.0) -> None:
        self._print_line, self._budget_s, self._spent_s = print_line, budget_s, spent_s

    def __call__(self, arm: str, number: int, replicate: Replicate | None) -> None:
        """Print a replicate, as `PairedExperiment` calls it."""
        if replicate is None:
            self._print_line(f"round {number + 1}: {arm} …")
            return
        self._spent_s += replicate.wall_s
        self._print_line(f"  {arm} {describe_replicate(replicate)} [{self._spent_s:.0f} of at most {self._budget_s:.0f} s]")


def describe_replicate(replicate: Replicate) -> str:
    """Return the result of one deployment in a few words."""
    if replicate.failure is not None:
        return f"failed: {replicate.failure['kind']} {replicate.failure['message']}"
    turns = [value for turn in replicate.turns if (value := turn.values.get(VOICE_TURN.turn_key)) is not None]
    failed = sum(turn.error is not None for turn in replicate.turns)
    callers = "" if replicate.capacity is None else f", callers {'at least ' if replicate.capacity_at_ceiling else ''}{replicate.capacity:.1f}"
    fitness = "" if replicate.fitness is None else f", fitness {replicate.fitness:.4f}"
    at = [percentile for percentile in (50, 95) if len(turns) >= least_samples(percentile)]
    speed = f", {'/'.join(f'p{percentile}' for percentile in at)} {' / '.join(f'{value:.0f}' for value in np.percentile(turns, at))} ms" if at else ""
    return f"{counted(len(turns), 'turn')}{speed}{f', {failed} failed' if failed else ''}{callers}{fitness}"


def make_findings_table(findings: Sequence[Finding], ours: str, theirs: str, label: str = "") -> Table:
    """Return every metric with its effect, interval and verdict. `label` tells where the other arm comes from."""
    table = Table(title=f"{ours} against {theirs}{f' ({label})' if label else ''}", title_justify="left")
    for column in ("metric", ours, theirs, "effect (interval)", "n", "verdict"):
        table.add_column(column, justify="right" if column in (ours, theirs) else "left", no_wrap=True)
    for finding in findings:
        effect = finding.effect
        values = ("-", "-") if effect is None or not finding.carried else (f"{effect.ours:.4g}", f"{effect.theirs:.4g}")
        verdict = str(finding.verdict) + (" (within the tolerance)" if finding.within_tolerance else "")
        style = {"better": "green", "worse": "red"}.get(str(finding.verdict))
        table.add_row(finding.metric.name, *values, finding.text, finding.n, verdict, style=style)
    return table


def describe_arms(arms: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    """Return a line for each arm."""
    named = {name: f"{name} ({label})" if (label := labels.get(name, "")) else name for name in arms}
    return [f"  {named[name]}: {', '.join(f'{key}={value}' for key, value in params.items())}" for name, params in arms.items()]
