"""`tune-gpu report`: show the results of a run and their evidence."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tune_gpu.artifacts.json_text import strict_json
from tune_gpu.artifacts.reading import RunRecord, RunState, read_folder, read_run, read_winner, refuse_running
from tune_gpu.artifacts.run_folder import RunFolder, write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.wording import plain
from tune_gpu.config.overrides import key_of, last_given
from tune_gpu.config.space_catalogue import recorded_catalogue
from tune_gpu.report.data import report_data

_PLACE = "run.artifacts_dir"
FILES = {"html": "report.html", "md": "report.md", "json": "report.json"}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run_id")
@click.argument("overrides", nargs=-1, metavar="[run.artifacts_dir=DIR]")
@click.option("--format", "form", type=click.Choice(list(FILES)), default="html", show_default=True, help="Format of the report.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write (default: report.html of the run; json and md: standard output).")
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
def report(run_id: str, overrides: tuple[str, ...], form: str, output: Path | None, opened: bool) -> None:
    """Report the results of a run: the verdict, its evidence, and its caveats.

    RUN_ID is a run's name (tune-gpu status lists them) or its folder. The page is one file that needs no network.

    \b
      tune-gpu report 20260131-120000 --open
      tune-gpu report 20260131-120000 --format md
      tune-gpu report 20260131-120000 --format json | jq .verdict
      tune-gpu report 20260131-120000 run.artifacts_dir=/data/artifacts

    Exit codes: 0 written; 1 written, and the run has no winner; 2 invalid input (no such run, still running, or a file of another program).
    """
    try:
        record = read_run(artifacts_dir_of(overrides), run_id)
        refuse_running(record)
        text = render(record, form)
        path = output or (record.folder.path / FILES[form] if form == "html" else None)
        if path is None:
            click.echo(text, nl=False)
        else:
            _write(path, text)
            click.echo(f"written: {path}")
        if opened and path is not None:
            webbrowser.open(path.resolve().as_uri())
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if record.state is RunState.NO_WINNER:
        click.echo("no winner: nothing was feasible in this run", err=True)
        sys.exit(1)


def artifacts_dir_of(overrides: tuple[str, ...]) -> str:
    """Return the folder that `run.artifacts_dir=DIR` sets, as for `launch`. Raise UserError for any other override."""
    if foreign := [key_of(override) for override in overrides if key_of(override) != _PLACE]:
        raise UserError(f"{foreign[0]}: not known here. Use {_PLACE}=DIR only.")
    return last_given(overrides, _PLACE, "artifacts") or "artifacts"


def render(record: RunRecord, form: str) -> str:
    """Return the report in this format. Raise UserError for artifacts with content that this program does not write."""
    from jinja2 import UndefinedError

    from tune_gpu.report.markdown import as_markdown
    from tune_gpu.report.page import as_html

    winner = read_winner(record.folder)
    try:
        data = report_data(record, winner)
        if form == "json":
            return strict_json(data.as_dict()) + "\n"
        if form == "md":
            return plain(as_markdown(data))
        return as_html(data, record.plan, objectives_of(record.config), recorded_catalogue(record.config))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UndefinedError) as error:  # invalid content deep inside a file that passed the reader's checks
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{record.folder.path}: cannot be reported, because a file has content that this program does not write ({reason})") from error


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` of a run that has just ended. Raise UserError for artifacts that cannot be read."""
    path = folder.path / FILES["html"]
    _write(path, render(read_folder(folder), "html"))
    return path


def objectives_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the objectives of Pareto mode, or an empty mapping without it."""
    search = config.get("search")
    found = search.get("objectives") if isinstance(search, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
