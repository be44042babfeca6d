"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tune_gpu.tournament import Candidate


def _ms(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    return f"{value['p50']:.0f} / {value['p95']:.0f}" if value else "-"


def describe_params(params: Mapping[str, Any]) -> str:
    """Short enough for a table."""
    return ", ".join(f"{name}={value}" for name, value in params.items())


class Progress:
    """The table of evaluations.

    Args:
        total: evaluations that are planned.
        names: of the parameters: a column each.
    """

    def __init__(self, console: Console, total: int, names: list[str], *, quiet: bool = False) -> None:
        self._console, self._total, self._names, self._quiet = console, total, names, quiet
        self._rows: list[Mapping[str, Any]] = []
        self._now: Candidate | None = None
        self._phase = ""
        self._started = time.monotonic()
        self._walls: list[float] = []
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._console.is_terminal and not self._quiet:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._now = None
            self._live.refresh()
            self._live.stop()

    def began(self, candidate: Candidate) -> None:
        """A candidate's evaluation has begun."""
        self._now = candidate
        if self._live is None and not self._quiet:
            self._console.print(
                f"{candidate.candidate_id} {candidate.origin}: {describe_params(candidate.params)} …", highlight=False, soft_wrap=True
            )

    def ended(self, line: Mapping[str, Any], *, replayed: bool = False) -> None:
        """An evaluation has ended."""
        self._rows.append(line)
        self._now = None
        if not replayed:
            self._walls.append(float(line.get("wall_s") or 0.0))
        if self._live is None and not self._quiet:
            self._console.print("  " + self._plain(line), highlight=False, soft_wrap=True)

    def time_left_s(self) -> float | None:
        """From the mean evaluation so far; null before the first."""
        if not self._walls:
            return None
        return sum(self._walls) / len(self._walls) * max(0, self._total - len(self._rows))

    def _plain(self, line: Mapping[str, Any]) -> str:
        left = self.time_left_s()
        tail = f"[{len(self._rows)}/{self._total}{f', about {left:.0f} s left' if left else ''}]"
        if line["fitness"] is None:
            failure = line["failure"] or {"kind": "violates " + ", ".join(line["violations"]), "message": ""}
            return f"{line['candidate_id']} {line['status']}: {failure['kind']} {failure['message']} {tail}"
        metrics = line["metrics"]
        return (
            f"{line['candidate_id']} ok: fitness {line['fitness']:.4f}, stt p50/p95 {_ms(metrics, 'stt_latency_ms')} ms, "
            f"llm {_ms(metrics, 'llm_latency_ms')} ms, turn {_ms(metrics, 'voice_turn_ms')} ms, wer {metrics['wer']}, "
            f"sessions {metrics['concurrent_capacity']}, {'engine re-used' if line['engine_reused'] else 'engine started'} {tail}"
        )

    def _table(self) -> Table:
        left = self.time_left_s()
        elapsed = time.monotonic() - self._started
        title = f"{len(self._rows)} of {self._total} evaluations, {elapsed:.0f} s" + (f", about {left:.0f} s left" if left else "")
        table = Table(title=title, title_justify="left", expand=False)
        for column in (
            "gen",
            "candidate",
            "origin",
            *self._names,
            "status",
            "stt ms\np50 / p95",
            "llm ms\np50 / p95",
            "turn ms\np50 / p95",
            "wer",
            "sessions",
            "engine",
            "fitness",
        ):
            table.add_column(column, justify="right" if column in ("fitness", "wer", "sessions") else "left", no_wrap=True)
        best = max((row["fitness"] for row in self._rows if row["fitness"] is not None), default=None)
        for row in self._rows:
            table.add_row(*self._cells(row), style="bold green" if row["fitness"] is not None and row["fitness"] == best else None)
        if self._now is not None:
            now = self._now
            table.add_row(
                str(now.generation),
                now.candidate_id,
                now.origin,
                *(str(now.params.get(n, "")) for n in self._names),
                "running",
                *[""] * 7,
                style="yellow",
            )
        return table

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        metrics = row["metrics"]
        head = [str(row["generation"]), row["candidate_id"], row["origin"], *(str(row["params"].get(name, "")) for name in self._names)]
        if row["fitness"] is None:
            kind = row["failure"]["kind"] if row["failure"] else "violates " + ", ".join(row["violations"])
            return [*head, f"{row['status']}: {kind}", *[""] * 7]
        return [
            *head,
            row["status"],
            _ms(metrics, "stt_latency_ms"),
            _ms(metrics, "llm_latency_ms"),
            _ms(metrics, "voice_turn_ms"),
            f"{metrics['wer']:.3f}" if metrics["wer"] is not None else "-",
            str(metrics["concurrent_capacity"]) if metrics["concurrent_capacity"] is not None else "-",
            "re-used" if row["engine_reused"] else "started",
            f"{row['fitness']:.4f}",
        ]
