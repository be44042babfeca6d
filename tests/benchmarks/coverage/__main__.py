"""Print how often a repeated deployment falls into the 95 % prediction interval of the others: `python -m tests.benchmarks.coverage [RUNS …]`.

RUNS are run folders, or files that `python -m tests.benchmarks.soak OUT.jsonl` writes (15 deployments of each of four configurations, an idle half
hour).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from tests.benchmarks.coverage.recorded import exact_interval, predicted, prior, read
from tests.benchmarks.coverage.simulated import Outcome, simulate_many

_PARTS = ("between", "drift", "tails", "design", "truth")


@click.command(help=__doc__)
@click.argument("runs", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[RUNS …]")
@click.option("--simulate", "n_simulated", default=0, type=click.IntRange(min=0), help="Simulate so many runs, too.")
@click.option("--prior", "derives_prior", is_flag=True, help="Derive the prior of search/evidence.py from RUNS; nothing is changed.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Where the figures go.")
def main(runs: tuple[Path, ...], n_simulated: int, derives_prior: bool, out: Path | None) -> None:
    if not runs and not n_simulated:
        raise click.UsageError("Nothing to do. Give run folders, files of soaks, or --simulate N.")
    found: dict[str, Any] = {}
    try:
        recorded = {str(path): read(path) for path in runs}
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"RUNS: {error}") from error
    if recorded:
        found["recorded"] = _recorded(recorded)
    if derives_prior and recorded:
        found["prior"] = [{"freedom": freedom, "ratio": ratio, "log_likelihood": log} for freedom, (ratio, log) in prior(list(recorded.values())).items()]
        for row in found["prior"]:
            click.echo(f"prior: {row['freedom']:g} degrees of freedom, best ratio {row['ratio']:.2f}, log-likelihood {row['log_likelihood']:.2f}")
    if n_simulated:
        found["simulated"] = _simulated(list(simulate_many(n_simulated)))
    if out:
        out.write_text(json.dumps(found, indent=1))


def _recorded(runs: dict[str, Any]) -> dict[str, Any]:
    each = {name: predicted(deployments) for name, deployments in runs.items()}
    rows = {name: _counted([one.inside for one in found]) | {"outside": [vars(one) for one in found if not one.inside]} for name, found in each.items()}
    rows["all"] = _counted([one.inside for found in each.values() for one in found])
    for name, row in rows.items():
        share = "" if not row["n"] else f" ({100 * row['hits'] / row['n']:.1f} %; exact 95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f} %)"
        click.echo(f"{name}: {row['hits']} of {row['n']} repeated deployments lie in the prediction interval of the others{share}")
    return rows


def _counted(inside: Sequence[bool]) -> dict[str, Any]:
    hits, n = sum(inside), len(inside)
    low, high = exact_interval(hits, n) if n else (0.0, 1.0)
    return {"hits": hits, "n": n, "low": low, "high": high}


def _simulated(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a row for all, and one for each value of each part of the setting."""
    rows = [_row("all", outcomes)]
    for part in _PARTS:
        for value in dict.fromkeys(getattr(each.setting, part) for each in outcomes):
            rows.append(_row(f"{part} {value}", [each for each in outcomes if getattr(each.setting, part) == value]))
    for row in rows:
        click.echo(" | ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items() if value is not None))
    return rows


def _row(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    def share(what: Callable[[Outcome], Iterable[bool] | None]) -> float | None:
        found = [value for each in outcomes for value in what(each) or ()]
        return float(np.mean(found)) if found else None

    return {
        "runs": name, "n": len(outcomes),
        "predictions": sum(len(each.covered) for each in outcomes),
        "coverage": share(lambda each: each.covered),
        "median width over the oracle's": float(np.median([width for each in outcomes for width in each.widths])),
        "equal pairs called different": share(lambda each: None if each.called_different is None else [each.called_different]),
        "equals called different from the winner": share(lambda each: each.different_from_first),
        "true best named": share(lambda each: None if each.named is None else [each.named]),
        "true best told apart from all": share(lambda each: None if each.told_apart is None else [each.told_apart]),
    }  # fmt: skip


if __name__ == "__main__":
    main()
