"""`tune-gpu plan`: compute which candidates of a space fit on a card, before anything is started."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import click

from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.cli.plan_view import ROWS, cards_table, print_plan
from tune_gpu.cli.terminal import console_of
from tune_gpu.cli.traffic_view import read_traffic, traffic_lines
from tune_gpu.common.errors import UserError
from tune_gpu.compare.forecast import predicted_confirmation
from tune_gpu.config.kinds import kinds_with
from tune_gpu.config.loader import DEFAULT_SPACE, device_setting, load_with_needs
from tune_gpu.config.overrides import is_override
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.cards import card_memory, find_card, this_card, this_node
from tune_gpu.evaluation.memory_check.space_plan import Preflight, rows_of
from tune_gpu.experiment.flag_check import check_flags
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.base import Versioned
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.predictions import VERDICTS, Predictions
from tune_gpu.services.registry import calibrations_of
from tune_gpu.telemetry.device_choice import cards_here


def version_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for the version of each of these kinds."""
    for kind in kinds_with(Versioned):
        command = click.option(f"--{kind.name}-version", f"version_{kind.name}", help=f"Version of {kind.label} to plan for. Default: the installed one.")(command)
    return command


@click.command()
@click.argument("arguments", nargs=-1, metavar="[SPACE] [KEY=VALUE | ~KEY]...")
@click.option("--gpu", help='A card by name, such as "RTX 3060" (see --cards). Default: this machine\'s device.')
@click.option("--total-mib", type=float, help="Memory of a card that is not in the table, as CUDA sees it (torch.cuda.mem_get_info).")
@click.option("--used-mib", type=float, help="MiB in use by other processes. Default: the current use, or 0 for a card by name.")
@version_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--cards", is_flag=True, help="List the cards that are known by name, and exit.")
@click.option("--trust", is_flag=True, help="Trust the space as your own: ask the programs of its services about all of its flags.")
@click.option("--rows", type=click.IntRange(0), default=ROWS, show_default=True, help="Largest number of candidates to list; more are drawn as a map.")
def plan(
    arguments: tuple[str, ...], gpu: str | None, total_mib: float | None, used_mib: float | None, as_json: bool, cards: bool, trust: bool, rows: int,
    **given: str | None,
) -> None:
    """Compute what fits on a card: the memory of each part, KV tokens, sequences, and advice for what does not fit.

    No service is started, and neither a GPU nor vLLM is needed. If vLLM is installed, its parser checks the flags of the space. Exit code 1
    if nothing is feasible, 2 for invalid input.
    """
    if cards:
        console_of(markup=True).print(cards_table())
        return
    try:
        named = bool(arguments) and not is_override(arguments[0])
        space_name, overrides = arguments[0] if named else DEFAULT_SPACE, list(arguments[named:])
        versions = {kind.name: version for kind in kinds_with(Versioned) if (version := _checked_version(kind, given)) is not None}
        device = plan_device(space_name, overrides, gpu, total_mib, used_mib)
        config, wanted = load_with_needs(space_name, overrides, device.kind)
        preflight = Preflight(config, device, calibrations_of(config.services), versions, starts=EarlierStarts())
        space = check_space(config)
        if (trust or not wanted) and all(versions.get(kind.name) in (None, kind.installed_version()) for kind in kinds_with(Versioned)):
            check_flags(config, space)
        params, found = preflight.predict_space(space)
        traffic = read_traffic(config) if config.workload.has_sessions and (trust or not wanted) else None  # files that somebody else names are not read
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        shown = {"traffic": asdict(traffic[0])} if traffic else {}
        click.echo(json.dumps(as_document(config, preflight, params, found) | shown | {"confirmation": predicted_confirmation(config, device.kind), "needs_trust": [{"key": each.key, "why": each.why} for each in wanted]}))
    else:
        for line in traffic_lines(config, *traffic) if traffic else ():
            click.echo(config.spelling.text(line))
        print_plan(console_of(markup=True), config, preflight, params, found, rows)
        for name, command in commands_of(config).items():
            click.echo(f"{name} runs: {shlex.join(command)}")
        click.echo(predicted_confirmation(config, device.kind))
        for each in wanted:
            click.echo(f"needs --trust: {config.spelling.text(str(each))}")
    sys.exit(0 if found.allowed.any() else 1)


def _checked_version(kind: Versioned, given: Mapping[str, str | None]) -> str | None:
    version = given[f"version_{kind.name}"]
    if version is not None:
        kind.check_version(f"--{kind.name}-version", version)
    return version


def plan_device(space: str, overrides: list[str], gpu: str | None, total_mib: float | None, used_mib: float | None) -> DeviceMemory:
    """Return the device to plan for. Raise UserError."""
    if total_mib is not None:
        named = find_card(gpu) if gpu is not None else None
        shared = named is not None and named.shares_host_memory
        return DeviceMemory(gpu or f"card of {total_mib:.0f} MiB", "cuda", total_mib, used_mib or 0.0, shares_host_memory=shared)
    if gpu is not None:
        return card_memory(gpu, used_mib or 0.0)
    device = this_device(device_setting(space, overrides))
    return device if used_mib is None else replace(device, used_mib=used_mib)


def this_device(setting: str) -> DeviceMemory:
    """Return this machine's device for the setting `device` (`auto`: a card if there is one). Raise UserError for `cuda` without a card."""
    if setting == "cuda" or (setting == "auto" and cards_here() > 0):
        return this_card()
    return this_node()


def commands_of(config: ExperimentConfig) -> dict[str, list[str]]:
    """Return the commands that the space itself names, by service, with their placeholders and without secrets."""
    given = {name: getattr(settings, "command", None) for name, settings in config.services.items()}
    return {name: Redactor(config).value(command) for name, command in given.items() if command}


def as_document(config: ExperimentConfig, preflight: Preflight, params: dict[str, Any], found: Predictions) -> dict[str, Any]:
    """Return the plan for JSON, with the complete prediction of every candidate."""
    device = preflight.device
    return {
        "experiment": config.name, **{f"{kind}_version": version for kind, version in preflight.versions.items()}, "models": preflight.models(), "from_starts": preflight.from_starts(),
        "device": {"name": device.name, "kind": device.kind, "total_mib": round(device.total_mib, 1), "used_mib": round(device.used_mib, 1)},
        "summary": {str(verdict): found.count(verdict) for verdict in VERDICTS} | {"candidates": len(found)},
        "commands": commands_of(config),
        "candidates": [{"params": row.params, **row.prediction.as_dict()} for row in rows_of(params, found)],
    }
