"""`tune-gpu`: all commands."""

from __future__ import annotations

import click

from tune_gpu.compare.command import compare
from tune_gpu.doctor.command import doctor
from tune_gpu.launch import launch
from tune_gpu.plan import plan
from tune_gpu.promote.command import promote
from tune_gpu.report.command import report
from tune_gpu.status import status
from tune_gpu.terminal import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tune-gpu")
def main() -> None:
    """Finds the configuration of several inference services that share a GPU."""


for _command in (launch, plan, report, compare, promote, status, doctor):
    main.add_command(_command)


if __name__ == "__main__":
    main()
