"""`tune-gpu status`: list the runs, their state, and how to resume those that are not finished."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tune_gpu.artifacts.json_text import strict_json
from tune_gpu.artifacts.reading import RunRecord, RunState, all_runs, resume_command
from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.report import artifacts_dir_of
from tune_gpu.cli.terminal import console_of
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.in_force import deployment_in

_INSTALL_DIR = "promote.install_dir="
_STYLE = {RunState.FINISHED: "green", RunState.RUNNING: "yellow", RunState.NO_WINNER: "red", RunState.BROKEN: "red"}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("overrides", nargs=-1, metavar="[run.artifacts_dir=DIR] [promote.install_dir=DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def status(overrides: tuple[str, ...], as_json: bool) -> None:
    """List all runs, finished and unfinished, oldest first.

    A run whose process has ended without a result is `killed`, one that was stopped is `interrupted`; the printed command resumes either. A
    run whose files cannot be read is `broken`, with the reason. A finished run has its decision: deploy it, keep the current configuration,
    or measure longer. The next command is printed for the newest run of each experiment. The last line names the deployment in force, if
    `promote` has installed one.
    """
    elsewhere = [override.removeprefix(_INSTALL_DIR) for override in overrides if override.startswith(_INSTALL_DIR)]
    try:
        place = artifacts_dir_of(tuple(override for override in overrides if not override.startswith(_INSTALL_DIR)))
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    deployed = deployment_in(Path(elsewhere[-1] if elsewhere else PromoteSettings().install_dir).expanduser().resolve())
    rows = [describe_run(folder, found) for folder, found in all_runs(place)]
    if as_json:
        click.echo(strict_json([row | {"deployment": deployed.of_run(row["run_id"])} for row in rows]))
        return
    if not rows:
        click.echo(f"no runs in {place}. Start one with: python -m tune_gpu.launch")
    else:
        _print(console_of(), rows)
    if deployed.message:
        click.echo(deployed.message)


def describe_run(folder: RunFolder, found: RunRecord | UserError) -> dict[str, Any]:
    """Return one entry of the list. None means unknown."""
    if isinstance(found, UserError):
        return _row(folder, RunState.BROKEN, note=str(found))
    manifest = found.manifest
    best = found.summary.best if found.summary and not found.state.resumable else None
    measured = sum(line.fitness is not None for line in found.lines)
    return _row(
        folder, found.state, device=manifest and manifest.device, started_at=manifest and manifest.started_at, n_evaluations=len(found.lines), n_anchors=len(found.anchors),
        n_measured=measured, fitness=best.fitness if best else None, winner=best.params if best else None,
        decision=found.decision, note=resume_command(folder) if found.state.resumable else "",
    )  # fmt: skip


def _row(folder: RunFolder, state: RunState, *, note: str, device: Any = None, started_at: Any = None, n_evaluations: int | None = None,
         n_anchors: int | None = None, n_measured: int | None = None, fitness: float | None = None, winner: Any = None,
         decision: Decision | None = None) -> dict[str, Any]:  # fmt: skip
    return {"run_id": folder.run_id, "experiment": folder.experiment, "state": str(state), "device": device, "started_at": started_at,
            "n_evaluations": n_evaluations, "n_anchors": n_anchors, "n_measured": n_measured, "fitness": fitness, "winner": winner,
            "decision": decision.dump() if decision else None,
            "resume": note if state.resumable else None, "error": note if state is RunState.BROKEN else None}  # fmt: skip


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(header_style="bold", pad_edge=False)
    for title in ("run", "experiment", "state", "device", "evaluations", "fitness", "decision"):
        table.add_column(title, justify="right" if title in ("evaluations", "fitness") else "left", no_wrap=title == "run", overflow="fold")  # the id is needed in commands, so it must not be wrapped
    for row in rows:
        evaluations = "-" if row["n_evaluations"] is None else f"{row['n_measured']} of {row['n_evaluations']} ok"
        advice = DecisionVerdict(row["decision"]["verdict"]).advice if row["decision"] else "-"
        fitness = "-" if row["fitness"] is None else f"{row['fitness']:.4f}"
        table.add_row(row["run_id"], row["experiment"], row["state"], str(row["device"] or "-"), evaluations, fitness, advice,
                      style=_STYLE.get(RunState(row["state"])))  # fmt: skip
    console.print(table)
    newest = {row["experiment"]: row for row in rows if row["decision"]}
    for row in rows:
        if row["resume"]:
            console.print(f"{row['run_id']} is {row['state']}; resume with: {row['resume']}", highlight=False, soft_wrap=True, markup=False)
        if row is newest.get(row["experiment"]) and (decision := Decision.parse(row["decision"], row["run_id"])).next_step:
            console.print(f"{row['run_id']}: {decision.verdict.advice}; next: {decision.next_step}", highlight=False, soft_wrap=True, markup=False)
        if row["error"]:
            console.print(f"{row['run_id']} is broken: {row['error']}", highlight=False, soft_wrap=True, markup=False)
