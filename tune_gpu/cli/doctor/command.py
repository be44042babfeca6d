"""`tune-gpu doctor`: check the machine before a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import psutil
from rich.console import Console

from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.cli.doctor.cards import Driver, check_driver, check_process_ids, device_files, read_driver
from tune_gpu.cli.doctor.machine import GIB, check_folders, check_limits, check_memory, check_ports, check_programs
from tune_gpu.cli.doctor.services import check_kinds, check_services
from tune_gpu.cli.terminal import console_of
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.cgroup import memory_group
from tune_gpu.config.loader import DEFAULT_SPACE, device_setting, load_config
from tune_gpu.config.overrides import is_override
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_services import kinds_of
from tune_gpu.services.findings import DoctorFinding, Level, Machine, fail, note

_MARK = {Level.OK: "[green]✓[/]", Level.NOTE: "[yellow]•[/]", Level.FAIL: "[red]✗[/]"}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("arguments", nargs=-1, metavar="[SPACE] [KEY=VALUE | ~KEY]...")
@click.option("--trust", is_flag=True, help="Trust the space as your own.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(arguments: tuple[str, ...], trust: bool, as_json: bool) -> None:
    """Check this machine for a space (by default the default space): driver, cards, Ray, every kind of service, ports, memory, permissions, disk,
    and for each of its services the program, the models, the key, and whether one that runs already answers.

    No service is started. ✓: passed. •: worth knowing. ✗: a run will fail; each ✗ has advice.

    Exit codes: 0 no check fails; 1 a check fails; 2 invalid input.
    """
    try:
        named = bool(arguments) and not is_override(arguments[0])
        found = list(examine(arguments[0] if named else DEFAULT_SPACE, list(arguments[named:]), trust=trust))
    except UserError as error:
        click.echo(f"error: {Redactor().text(str(error))}", err=True)
        sys.exit(2)
    failed = [finding for finding in found if finding.level is Level.FAIL]
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "checks": [finding.as_dict() for finding in found]}, indent=2, ensure_ascii=False))
    else:
        _print(console_of(markup=True), found, len(failed))
    sys.exit(1 if failed else 0)


def examine(space: str, overrides: list[str], *, trust: bool = False) -> Iterator[DoctorFinding]:
    """Yield the result of every check of this machine for a space. Raise UserError if the space is invalid."""
    driver = read_driver()
    machine = _machine(device_setting(space, overrides), driver)
    config = load_config(space, overrides, machine.device, trust=trust)
    yield from check_driver(driver, device_files())
    if machine.device == "cuda" and not driver.cards:
        yield fail("device", "device=cuda, and no card answers", "set device=auto, or make nvidia-smi list the card")
    yield from check_process_ids(driver, os.readlink("/proc/self/ns/pid"), psutil.pid_exists)
    yield from check_programs()
    yield from _without_secrets(config, check_kinds(machine, {kind for _, kind in kinds_of(config.services)}))
    yield from _without_secrets(config, _services(config, machine))
    yield from check_ports(config.run.port_range)
    yield from check_memory(*_memory_gib())
    yield from check_folders(Path(config.run.artifacts_dir).expanduser())
    yield from check_limits()


def _machine(setting: str, driver: Driver) -> Machine:
    on_card = setting == "cuda" or (setting == "auto" and bool(driver.cards))
    return Machine("cuda" if on_card else "cpu", driver.cuda if on_card else None)


def _services(config: ExperimentConfig, machine: Machine) -> Iterator[DoctorFinding]:
    if config.ray.address is not None:
        yield note("cluster", f"ray.address={config.ray.address}: the services run on its nodes", "run tune-gpu doctor on each of them")
        return
    yield from check_services(config, machine)


def _without_secrets(config: ExperimentConfig, findings: Iterator[DoctorFinding]) -> Iterator[DoctorFinding]:
    redactor = Redactor(config)
    for each in findings:
        yield replace(each, found=redactor.text(each.found), advice=redactor.text(each.advice))


def _memory_gib() -> tuple[float, float]:
    """Return the total and the free memory of the machine, or of the container if its limit is lower."""
    memory, group = psutil.virtual_memory(), memory_group()
    limit = group.limit() if group is not None else None
    if group is None or limit is None or limit >= memory.total:
        return memory.total / GIB, memory.available / GIB
    return limit / GIB, min(memory.available, max(0, limit - group.used())) / GIB


def _print(console: Console, found: list[DoctorFinding], n_failed: int) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        console.print(_MARK[finding.level], end=" ")
        console.print(f"{finding.check:{width}}  {finding.found}", markup=False, highlight=False, soft_wrap=True)
        if finding.advice:
            console.print(f"  {'':{width}}  -> {finding.advice}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{n_failed} of {len(found)} checks fail" if n_failed else "all checks pass", highlight=False)
