"""`tune-gpu`: all commands."""

from __future__ import annotations

import click

from tune_gpu.cli.compare import compare
from tune_gpu.cli.doctor.command import doctor
from tune_gpu.cli.launch import launch
from tune_gpu.cli.plan import plan
from tune_gpu.cli.promote import promote
from tune_gpu.cli.report import report
from tune_gpu.cli.status import status
from tune_gpu.cli.terminal import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tune-gpu")
def main() -> None:
    """Find the best configuration of inference services that share a GPU."""


for _command in (launch, plan, report, compare, promote, status, doctor):
    main.add_command(_command)


if __name__ == "__main__":
    main()
