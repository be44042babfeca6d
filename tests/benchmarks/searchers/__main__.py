"""Compares searchers on landscapes: `python -m tests.benchmarks.searchers FILE … --json OUT`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED", "random") == "random":
    # SMAC goes through sets of names, in the order of their hashes: the same command again must find the same. Only a new process can have it.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})

import click

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before NumPy: for a few hundred rows more threads only wait for each other

from tests.benchmarks.searchers import landscapes, report  # noqa: E402
from tests.benchmarks.searchers.batch import Runs, Setting  # noqa: E402
from tests.benchmarks.searchers.peers import NAMES  # noqa: E402
from tests.benchmarks.searchers.replay import Run  # noqa: E402
from tune_gpu.common.errors import UserError  # noqa: E402


def _searchers(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    found = list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    unknown = [name for name in found if name not in NAMES]
    if unknown or not found:
        raise click.BadParameter(f"{','.join(unknown) or 'none'}: allowed: {', '.join(NAMES)}")
    return found


def _budgets(_context: click.Context, _parameter: click.Parameter, value: str) -> list[int]:
    try:
        found = sorted({int(part) for part in value.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{value}: allowed are whole numbers with commas between them") from error
    if not found or found[0] < 1:
        raise click.BadParameter(f"{value}: allowed is 1 or more")
    return found


def _finite(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value}: allowed is a finite number of 0 or more")
    return value


def _in_a_folder(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """What is written at the end must not fail there for want of a folder."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"{value}: no such folder: {value.parent}")
    return value


@contextlib.contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise click.UsageError(str(error)) from error


@click.command(help=__doc__)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--searchers", default=",".join(NAMES), callback=_searchers, show_default=True)
@click.option("--budgets", default="15,30,60,100,200", callback=_budgets, show_default=True, help="Evaluations after which the best counts.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Evaluations side by side.")
@click.option("--noise", default=0.0, show_default=True, type=click.FloatRange(min=0.0), callback=_finite, help="Standard deviation of a factor on each cost.")
@click.option("--seeds", default=30, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder, help="Where the table goes.")
@click.option("--details", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder, help="The same with more columns: evaluations to within 5 % and 1 %, named winner.")
@click.option("--runs", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder, help="Keep every run in this file (.gz: compressed), and make none twice: a stopped comparison goes on.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default="all cores", type=click.IntRange(min=1), help="Runs side by side.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder, help="A picture of the medians (needs matplotlib).")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder, help="The table for people.")
@click.option("--quiet", is_flag=True)
def main(
    files: tuple[str, ...], searchers: list[str], budgets: list[int], batch: int, noise: float, seeds: int, out: Path | None, details: Path | None,
    runs: Path | None, jobs: int, plot: Path | None, markdown: Path | None, quiet: bool,
) -> None:
    rows: list[report.Row] = []
    done: dict[tuple[str, str], list[Run]] = {}
    with _told_in_one_line():
        store = Runs(runs)
    for file in dict.fromkeys(files):
        with _told_in_one_line():
            landscape = landscapes.load(file)
        for searcher in searchers:
            setting = Setting(landscape.name, searcher, budgets[-1], batch, noise, landscape.fingerprint)
            found = done[file, searcher] = []
            for run in store.get(landscape, setting, range(seeds), jobs):
                found.append(run)
                if not quiet and sys.stderr.isatty():
                    click.echo(f"\r{landscape.name} {searcher} {len(found)}/{seeds} ", err=True, nl=False)
            rows += report.rows(file, landscape, searcher, found, budgets)
            if not quiet:
                click.echo(("\r" if sys.stderr.isatty() else "") + report.line(rows[-len(budgets):]), err=True)
            for path, more in ((out, False), (details, True)):
                if path:  # as it goes: a comparison that is stopped keeps what it measured
                    path.write_text(json.dumps([row.as_json(details=more) for row in rows], indent=1))
    report.show(rows, done, budgets, noise)
    if markdown:
        markdown.write_text(report.markdown(rows, budgets))
    if plot:
        report.plot(done, plot)


if __name__ == "__main__":
    main()
