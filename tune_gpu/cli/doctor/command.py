"""`tune-gpu doctor`: check the machine before a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import psutil
from rich.console import Console

from tune_gpu.cli.doctor.cards import check_driver, check_libraries, check_process_ids, device_files, read_driver, torch_cuda
from tune_gpu.cli.doctor.findings import DoctorFinding, Level
from tune_gpu.cli.doctor.machine import GIB, check_folders, check_limits, check_memory, check_ports, check_programs
from tune_gpu.cli.report import artifacts_dir_of
from tune_gpu.cli.terminal import console_of
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.cgroup import memory_group
from tune_gpu.config.schema import RunSettings
from tune_gpu.services.faster_whisper.cuda_libraries import find_library

_MARK = {Level.OK: "[green]✓[/]", Level.NOTE: "[yellow]•[/]", Level.FAIL: "[red]✗[/]"}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("overrides", nargs=-1, metavar="[run.artifacts_dir=DIR]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(overrides: tuple[str, ...], as_json: bool) -> None:
    """Check this machine: driver, cards, CUDA libraries, Ray, vLLM, faster-whisper, ports, memory, permissions, disk.

    Nothing is started or changed. ✓: passed. •: worth knowing. ✗: a run will fail; each ✗ has advice.

    Exit codes: 0 no check fails; 1 a check fails; 2 invalid input.
    """
    try:
        found = list(examine(Path(artifacts_dir_of(overrides))))
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    failed = [finding for finding in found if finding.level is Level.FAIL]
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "checks": [finding.as_dict() for finding in found]}, indent=2, ensure_ascii=False))
    else:
        _print(console_of(markup=True), found, len(failed))
    sys.exit(1 if failed else 0)


def examine(artifacts: Path) -> Iterator[DoctorFinding]:
    """Yield the result of every check of this machine."""
    driver = read_driver()
    yield from check_driver(driver, device_files())
    yield from check_process_ids(driver, os.readlink("/proc/self/ns/pid"), psutil.pid_exists)
    yield from check_libraries(driver, torch_cuda(), find_library)
    yield from check_programs(bool(driver.cards))
    yield from check_ports(RunSettings().port_range)
    yield from check_memory(*_memory_gib())
    yield from check_folders(artifacts)
    yield from check_limits()


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
