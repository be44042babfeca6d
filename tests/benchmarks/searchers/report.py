"""From runs to tables: medians with bootstrap confidence intervals, evaluations to a target, ratios to random and to the best peer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.replay import Run

_RESAMPLES = 1000
OURS = ("rzero", "classic")


@dataclass(frozen=True)
class Row:
    """One landscape, searcher and budget. `median`: best found / optimum, true values, over the seeds; 95 % percentile bootstrap."""

    file: str
    family: str
    searcher: str
    budget: int
    median: float
    ci_low: float
    ci_high: float
    ms_per_proposal: float
    to_5_pct: float | None
    """Median evaluations until within 5 % of the optimum; null if half of the runs never were."""
    to_1_pct: float | None
    winner_over_best: float
    """At the largest budget: the true cost of the named winner over that of the best proposed (median); 1 without noise."""
    seeds: int

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: null."""
        return {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in asdict(self).items()}


def rows(file: str, landscape: Landscape, searcher: str, runs: Sequence[Run], budgets: Sequence[int]) -> list[Row]:
    """One row a budget."""
    rng = np.random.default_rng(0)
    found = []
    for budget in budgets:
        values = np.array([run.best[budget - 1] for run in runs])
        resampled = np.sort(np.median(values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1))
        low, high = resampled[int(0.025 * _RESAMPLES)], resampled[int(0.975 * _RESAMPLES) - 1]
        found.append(Row(
            file, landscape.family, searcher, budget, float(np.median(values)), float(low), float(high),
            round(float(np.median([run.ms_per_proposal for run in runs])), 3), _evaluations_to(runs, 1.05), _evaluations_to(runs, 1.01),
            float(np.median([run.winner / run.best[-1] for run in runs])), len(runs)))
    return found


def _evaluations_to(runs: Sequence[Run], ratio: float) -> float | None:
    reached = [next((i + 1 for i, value in enumerate(run.best) if value <= ratio), math.inf) for run in runs]
    median = float(np.median(reached))
    return median if math.isfinite(median) else None


def line(found: Sequence[Row]) -> str:
    """One searcher on one landscape, while it goes."""
    values = "  ".join(f"{row.budget}:{row.median:.4f}" for row in found)
    last = found[-1]
    return f"{Path(last.file).name[:34]:34s} {last.searcher:8s} {values}  to5%:{last.to_5_pct} {last.ms_per_proposal:.1f} ms winner {last.winner_over_best:.4f}"


def show(found: Sequence[Row], runs: Mapping[tuple[str, str], Sequence[Run]], budgets: Sequence[int], noise: float) -> None:
    """The table by family, and R-Zero's evaluations to what random's median has reached."""
    console = Console(width=140)
    searchers = list(dict.fromkeys(row.searcher for row in found))
    table = Table(title=f"geometric mean of median best / optimum (noise {noise:g})")
    for heading in ("family", "searcher", *(str(b) for b in budgets), "winner/best", "ms/proposal"):
        table.add_column(heading, justify="left" if heading in ("family", "searcher") else "right")
    for family in [*dict.fromkeys(row.family for row in found), "all"]:
        for searcher in searchers:
            mine = [row for row in found if row.searcher == searcher and family in ("all", row.family)]
            by_budget = [_geometric([row.median for row in mine if row.budget == b]) for b in budgets]
            winner = _geometric([row.winner_over_best for row in mine])
            table.add_row(family, searcher, *(f"{v:.4f}" for v in by_budget), f"{winner:.4f}", f"{np.median([r.ms_per_proposal for r in mine]):.1f}")
        table.add_section()
    console.print(table)
    if "random" in searchers:
        _show_ratios(console, runs, searchers, budgets)


def _show_ratios(console: Console, runs: Mapping[tuple[str, str], Sequence[Run]], searchers: Sequence[str], budgets: Sequence[int]) -> None:
    table = Table(title="evaluations to reach what random's median has reached, as a share of random's (geometric mean; > where some never did)")
    for heading in ("searcher", *(str(b) for b in budgets)):
        table.add_column(heading, justify="left" if heading == "searcher" else "right")
    names = list(dict.fromkeys(name for name, _ in runs))
    for searcher in searchers:
        cells = []
        for budget in budgets:
            shares, missed = [], False
            for name in names:
                target = float(np.median([run.best[budget - 1] for run in runs[name, "random"]]))
                curve = np.median(np.array([run.best for run in runs[name, searcher]]), axis=0)
                reached = np.nonzero(curve <= target)[0]
                missed |= not len(reached)
                shares.append((int(reached[0]) + 1 if len(reached) else len(curve)) / budget)
            cells.append(f"{'>' if missed else ''}{_geometric(shares):.3f}")
        table.add_row(searcher, *cells)
    console.print(table)


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if len(values) else math.nan


def plot(runs: Mapping[tuple[str, str], Sequence[Run]], path: Path) -> None:
    """Median regret (best / optimum - 1) by evaluations, a panel a landscape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _ in runs))
    columns = min(3, len(names))
    figure, axes = plt.subplots(math.ceil(len(names) / columns), columns, figsize=(5 * columns, 3.6 * math.ceil(len(names) / columns)), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for (landscape, searcher), found in runs.items():
            if landscape == name:
                median = np.median(np.array([run.best for run in found]), axis=0) - 1.0
                axis.plot(range(1, len(median) + 1), np.maximum(median, 1e-4), label=searcher, linewidth=2.5 if searcher in OURS else 1.2)
        axis.set(title=name, xlabel="evaluations", ylabel="best / optimum - 1 (median)", yscale="log")
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
