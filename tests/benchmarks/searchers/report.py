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
from tests.benchmarks.searchers.packed import stem
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
    """At the largest budget: the true cost of the named winner over that of the best proposed (median); 1 without noise, infinite if half of
    the runs named none."""
    seeds: int

    def as_json(self, *, details: bool = False) -> dict[str, Any]:
        """What other programs read; with `details` all of it. JSON has no infinity: null, where half of the runs found nothing that runs."""
        values = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in asdict(self).items()}
        return values if details else {k: values[k] for k in ("file", "searcher", "budget", "median", "ci_low", "ci_high", "ms_per_proposal")}


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
            float(np.median([_winner_over_best(run) for run in runs])), len(runs)))
    return found


def _winner_over_best(run: Run) -> float:
    """Infinite for a run that found nothing that runs: it has neither."""
    return run.winner / run.best[-1] if math.isfinite(run.best[-1]) else math.inf


def _evaluations_to(runs: Sequence[Run], ratio: float) -> float | None:
    reached = [next((i + 1 for i, value in enumerate(run.best) if value <= ratio), math.inf) for run in runs]
    median = float(np.median(reached))
    return median if math.isfinite(median) else None


def markdown(found: Sequence[Row], budgets: Sequence[int]) -> str:
    """The table of RESULTS.md: a line a landscape and searcher."""
    lines = ["| landscape | searcher | seeds | " + " | ".join(map(str, budgets)) + " | to within 5 % | to within 1 % | winner / best | ms |"]
    lines += ["|" + "---|" * (7 + len(budgets))]
    labels = _labels([row.file for row in found])
    for file, searcher in dict.fromkeys((row.file, row.searcher) for row in found):
        mine = [row for row in found if (row.file, row.searcher) == (file, searcher)]
        by_budget = {row.budget: f"{row.median:.3f} ({row.ci_low:.3f}-{row.ci_high:.3f})" for row in mine}
        cells = [by_budget.get(budget, "") for budget in budgets]
        reached = ["never" if evaluations is None else f"{evaluations:g}" for evaluations in (mine[0].to_5_pct, mine[0].to_1_pct)]
        last = mine[-1]
        lines.append("| " + " | ".join([labels[file], searcher, str(last.seeds), *cells, *reached, _or_missing(last.winner_over_best, 3), f"{last.ms_per_proposal:.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def _short(file: str) -> str:
    """A file's or folder's name without its ending; any other landscape's name as it is (`bbob-mixint:2/10` is no path)."""
    return stem(Path(file)) if Path(file).exists() else file


def _labels(files: Sequence[str]) -> dict[str, str]:
    """Each file by its short name, or as it was given where another has the same one."""
    short = {file: _short(file) for file in files}
    return {file: name if list(short.values()).count(name) == 1 else file for file, name in short.items()}


def _or_missing(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def line(found: Sequence[Row]) -> str:
    """One searcher on one landscape, while it goes."""
    values = "  ".join(f"{row.budget}:{row.median:.4f}" for row in found)
    last = found[-1]
    return f"{_short(last.file)[:34]:34s} {last.searcher:8s} {values}  to5%:{last.to_5_pct} {last.ms_per_proposal:.1f} ms winner {_or_missing(last.winner_over_best, 4)}"


def show(found: Sequence[Row], runs: Mapping[tuple[str, str], Sequence[Run]], budgets: Sequence[int], noise: float) -> None:
    """The table by family, and the evaluations to reach what random and the best peer have reached."""
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
            table.add_row(family, searcher, *(f"{v:.4f}" for v in by_budget), _or_missing(winner, 4), f"{np.median([r.ms_per_proposal for r in mine]):.1f}")
        table.add_section()
    console.print(table)
    _show_ratios(console, runs, searchers, budgets)


def _show_ratios(console: Console, runs: Mapping[tuple[str, str], Sequence[Run]], searchers: Sequence[str], budgets: Sequence[int]) -> None:
    """Evaluations as a share of random's, and of those of whichever peer is best at that budget on that landscape."""
    curves = {key: np.median(np.array([run.best for run in found]), axis=0) for key, found in runs.items()}
    peers = [name for name in searchers if name not in OURS]
    for title, rivals in (("random", ["random"] if "random" in searchers else []), ("the best peer", peers)):
        if not rivals:
            continue
        table = Table(title=f"evaluations to reach what {title}'s median has reached, as a share of its own (geometric mean; > where some never did)")
        for heading in ("searcher", *(str(b) for b in budgets)):
            table.add_column(heading, justify="left" if heading == "searcher" else "right")
        for searcher in searchers:
            table.add_row(searcher, *(_share(curves, searcher, rivals, budget) for budget in budgets))
        console.print(table)


def _share(curves: Mapping[tuple[str, str], np.ndarray], searcher: str, rivals: Sequence[str], budget: int) -> str:
    shares, missed = [], False
    for name in dict.fromkeys(landscape for landscape, _ in curves):
        target = min(float(curves[name, rival][budget - 1]) for rival in rivals)
        reached = np.nonzero(curves[name, searcher] <= target)[0]
        missed |= not len(reached)
        shares.append((int(reached[0]) + 1 if len(reached) else len(curves[name, searcher])) / budget)
    return f"{'>' if missed else ''}{_geometric(shares):.3f}"


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if len(values) else math.nan


def plot(runs: Mapping[tuple[str, str], Sequence[Run]], path: Path) -> None:
    """Median regret (best / optimum - 1) by evaluations, a panel a landscape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _ in runs))
    labels = _labels(names)
    columns = min(3, len(names))
    figure, axes = plt.subplots(math.ceil(len(names) / columns), columns, figsize=(5 * columns, 3.6 * math.ceil(len(names) / columns)), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for (landscape, searcher), found in runs.items():
            if landscape == name:
                median = np.median(np.array([run.best for run in found]), axis=0) - 1.0
                axis.plot(range(1, len(median) + 1), np.maximum(median, 1e-4), label=searcher, linewidth=2.5 if searcher in OURS else 1.2)
        axis.set(title=labels[name], xlabel="evaluations", ylabel="best / optimum - 1 (median)", yscale="log")
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
