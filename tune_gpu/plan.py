"""`tune-gpu plan`: what of a space fits on a card, before anything is started; for this machine's device or any card by name."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tune_gpu.config import ExperimentConfig
from tune_gpu.config_loader import DEFAULT_SPACE, device_setting, load_config
from tune_gpu.errors import UserError
from tune_gpu.preflight.calibration import CalibrationStore
from tune_gpu.preflight.cards import card_memory, this_card, this_node
from tune_gpu.preflight.engine_rules import version_number
from tune_gpu.preflight.space_plan import Preflight, rows_of
from tune_gpu.preflight.values import DeviceMemory, Verdict
from tune_gpu.preflight.vectorised import VERDICTS, Predictions
from tune_gpu.space import SearchSpace

ROWS = 60
"""More candidates than this are drawn as a map, unless `--rows` asks for more."""
_STYLE = {Verdict.FITS: "green", Verdict.UNCERTAIN: "yellow", Verdict.INFEASIBLE: "red", Verdict.NOT_MODELLED: "dim"}


@click.command()
@click.argument("arguments", nargs=-1, metavar="[SPACE] [KEY=VALUE]...")
@click.option("--gpu", help='A card by name, "RTX 3060" say; without it this machine\'s device.')
@click.option("--total-mib", type=float, help="Memory of a card that is not in the table, as CUDA sees it (torch.cuda.mem_get_info).")
@click.option("--used-mib", type=float, help="What the neighbours on the card hold; by default what they hold now, or nothing on a card by name.")
@click.option("--vllm-version", help="Whose rules hold; by default the installed one's.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--rows", type=click.IntRange(0), default=ROWS, show_default=True, help="Candidates listed one by one; above that a map is drawn.")
def plan(
    arguments: tuple[str, ...], gpu: str | None, total_mib: float | None, used_mib: float | None, vllm_version: str | None, as_json: bool, rows: int,
) -> None:
    """What of a space fits, what each part takes, how many KV tokens and sequences vLLM gets, and what would repair what does not fit.

    Starts nothing, and needs neither a GPU nor vLLM. Exit code 1 if nothing is feasible, 2 for bad input.
    """
    try:
        space_name = arguments[0] if arguments and "=" not in arguments[0] else DEFAULT_SPACE
        overrides = [argument for argument in arguments if argument != space_name or "=" in argument]
        if vllm_version is not None and version_number(vllm_version) is None:
            raise UserError(f"--vllm-version {vllm_version}: allowed is a version as in 0.32.0")
        device = plan_device(space_name, overrides, gpu, total_mib, used_mib)
        config = load_config(space_name, overrides, device.kind)
        preflight = Preflight(config, device, CalibrationStore(), vllm_version)
        params, found = preflight.predict_space(SearchSpace.from_specs(config.parameters))
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(as_document(config, preflight, params, found)))
    else:
        print_plan(Console(), config, preflight, params, found, rows)
    sys.exit(0 if found.allowed.any() else 1)


def plan_device(space: str, overrides: list[str], gpu: str | None, total_mib: float | None, used_mib: float | None) -> DeviceMemory:
    """The device that is asked about. Raises UserError."""
    if total_mib is not None:
        return DeviceMemory(gpu or f"card of {total_mib:.0f} MiB", "cuda", total_mib, used_mib or 0.0)
    if gpu is not None:
        return card_memory(gpu, used_mib or 0.0)
    device = this_device(device_setting(space, overrides))
    return device if used_mib is None else DeviceMemory(device.name, device.kind, device.total_mib, used_mib, device.cores)


def this_device(setting: str) -> DeviceMemory:
    """This machine's, by the setting `device` (`auto`: a card if there is one). Raises UserError for `cuda` without a card."""
    from tune_gpu.telemetry.probe import nvidia_cards

    if setting == "cuda" or (setting == "auto" and nvidia_cards() > 0):
        return this_card()
    return this_node()


def print_plan(console: Console, config: ExperimentConfig, preflight: Preflight, params: dict[str, Any], found: Predictions, rows: int = ROWS) -> None:
    """The head, then a table of all candidates or a map, then the counts."""
    device = preflight.device
    console.print(
        f"[bold]{config.name}[/] on {device.name} ({device.kind}): {device.total_mib:.0f} MiB, {device.used_mib:.0f} MiB held by neighbours; "
        f"vLLM {preflight.vllm_version}", highlight=False,
    )
    if len(found) <= rows:
        console.print(_table(params, found))
    else:
        console.print(_map(config, params, found))
        for verdict in (Verdict.INFEASIBLE, Verdict.UNCERTAIN, Verdict.NOT_MODELLED):
            places = np.flatnonzero(found.verdict == VERDICTS.index(verdict))
            if len(places):
                console.print(f"{verdict}, for example: {found.explain(int(places[0])).reason}", highlight=False)
    counts = ", ".join(f"[{_STYLE[verdict]}]{found.count(verdict)} {str(verdict).replace('_', ' ')}[/]" for verdict in VERDICTS if found.count(verdict))
    console.print(f"{len(found)} candidates: {counts}", highlight=False)


def _table(params: dict[str, Any], found: Predictions) -> Group:
    """The candidates, and below them why some cannot start or are in doubt: each reason once, by its number."""
    table = Table(header_style="bold", pad_edge=False)
    for name in params:
        table.add_column(name)
    for title in ("verdict", "why", "KV tokens", "sequences", "headroom MiB"):
        table.add_column(title, justify="left" if title == "verdict" else "right")
    reasons: dict[str, int] = {}
    for row in rows_of(params, found):
        said, style = row.prediction, _STYLE[row.prediction.verdict]
        number = "" if said.verdict is Verdict.FITS else str(reasons.setdefault(said.reason, len(reasons) + 1))
        table.add_row(
            *(_text(row.params.get(name)) for name in params), f"[{style}]{str(said.verdict).replace('_', ' ')}[/]", number,
            f"{said.kv_cache_tokens.value:,}" if said.kv_cache_tokens else "-",
            f"{said.max_concurrency:.2f}" if said.max_concurrency is not None else "-",
            f"{said.headroom_mib:.0f}" if said.headroom_mib is not None else "-",
        )
    return Group(table, *(Text(f"{number}: {reason}") for reason, number in reasons.items()))


def _map(config: ExperimentConfig, params: dict[str, Any], found: Predictions) -> Table:
    """For each value of each parameter, against vLLM's share: how many of the candidates with both may be launched."""
    across = next((name for name, spec in config.parameters.items() if spec.target == "vllm.gpu_memory_utilization"), next(iter(params)))
    shares = _values(params[across])
    table = Table(title=f"may be launched / candidates, by {across}", header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("")
    for share in shares:
        table.add_column(_text(share), justify="right")
    columns = {name: np.array([_text(_plain(value)) for value in values]) for name, values in params.items()}
    for name in params:
        for value in [None] if name == across else _values(params[name]):
            label = "all" if value is None else f"{name}={_text(value)}"
            cells = []
            for share in shares:
                here = columns[across] == _text(share)
                if value is not None:
                    here &= columns[name] == _text(value)
                allowed = int(found.allowed[here].sum())
                style = "green" if allowed == here.sum() else "red" if not allowed else "yellow"
                cells.append(f"[{style}]{allowed}/{int(here.sum())}[/]")
            table.add_row(label, *cells)
    return table


def as_document(config: ExperimentConfig, preflight: Preflight, params: dict[str, Any], found: Predictions) -> dict[str, Any]:
    """For programs: every candidate with its whole prediction."""
    device = preflight.device
    return {
        "experiment": config.name, "vllm_version": preflight.vllm_version,
        "device": {"name": device.name, "kind": device.kind, "total_mib": round(device.total_mib, 1), "used_mib": round(device.used_mib, 1)},
        "summary": {str(verdict): found.count(verdict) for verdict in VERDICTS} | {"candidates": len(found)},
        "candidates": [{"params": row.params, **row.prediction.as_dict()} for row in rows_of(params, found)],
    }


def _values(column: Any) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in column:
        seen.setdefault(_text(_plain(value)), _plain(value))
    return list(seen.values())


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
