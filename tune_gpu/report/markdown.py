"""The report as Markdown, for a pull request, a ticket or a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.wording import counted, duration_text
from tune_gpu.report.data import ReportData, describe
from tune_gpu.report.importance import importance_of, importance_text
from tune_gpu.report.page import number


def as_markdown(data: ReportData) -> str:
    """Return the whole report, with tables instead of pictures."""
    parts = [f"# {_text(data.experiment)}, run {_text(data.run_id)} (device: {_text(data.device_kind)})", *_decision(data.decision), f"**{_text(data.verdict)}**"]
    parts += [f"- {_text(caveat)}" for caveat in data.caveats]
    if data.rows:
        parts.append("## Winner against baseline")
        parts.append(_table(("knob", "baseline", "winner"), data.changes))
        rows = ((row.label, row.baseline_text, row.winner_text, _change(row.change_pct if row.comparable else None)) for row in data.rows)
        parts.append(_text(data.rows_of))
        parts.append(_table(("metric", "baseline", "winner", "change"), rows))
    parts.append("## Evaluations")
    parts.append(_table(("candidate", "origin", "configuration", "status", "fitness"), (_evaluation(line, data.errors.get(line.candidate_id)) for line in data.lines)))
    importance = importance_of(data.lines)
    if any(line.fitness is not None for line in data.lines):
        parts += ["## Which knob mattered", importance_text(importance)]
    if importance is not None and importance.caution is None:
        parts.append(_table(("knob", "importance"), zip(importance.names, (number(mean, 3) for mean in importance.mean), strict=True)))
    if data.failures:
        parts.append("## What was infeasible or failed")
        parts.append(_table(("kind", "how many", "why, of the last"), ((f["kind"], f["count"], f["message"]) for f in data.failures)))
    if data.refused:
        parts.append(f"Refused before anything started: {counted(len(data.refused), 'configuration')}; for example: {_text(data.refused[0].get('reason'))}")
    parts.append("## Where the minutes went")
    parts.append(_table(("part", "time", "share"), ((c.part, duration_text(c.seconds), f"{100 * c.share:.0f} %") for c in data.costs)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _decision(decision: Decision | None) -> list[str]:
    if decision is None:
        return []
    parts = [f"**{_text(decision.sentence[:1].upper() + decision.sentence[1:])}**"]
    if decision.next_step:
        parts.append(f"Next: {_text(decision.next_step)}")
    shown = [f"- {name}: {_text(text)}" for name, text in decision.group_texts]
    return [*parts, "\n".join([*shown, f"- rests on: {_text(decision.basis)}"])]


def _evaluation(line: EvaluationRecord, error: float | None) -> tuple[str, ...]:
    status = line.outcome + (f": {line.failure.kind}" if line.failure else "")
    return line.candidate_id, line.origin, describe(line.params), status, number(line.fitness) + ("" if error is None else f" ± {number(error)}")


def _change(change_pct: float | None) -> str:
    return "–" if change_pct is None else f"{change_pct:+.0f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(_text, cells)) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]]) if len(lines) > 1 else ""


def _text(value: Any) -> str:
    """Return a value as text on one line, with Markdown's special characters escaped, so that no artifact becomes markup."""
    text = " ".join(str("–" if value is None else value).split())
    return "".join("\\" + letter if letter in "\\`*_[]<>|#" else letter for letter in text)
