"""`tune-gpu`: all commands."""

from __future__ import annotations

import click

from tune_gpu.launch import launch
from tune_gpu.plan import plan


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tune-gpu")
def main() -> None:
    """Finds the configuration of several inference services that share a GPU."""


main.add_command(launch)
main.add_command(plan)
