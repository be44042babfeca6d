"""Waste, measured: `python -m tests.benchmarks.waste COMMAND`.

    switch      seconds from one candidate's engine to the next: forked from the fork server, and a cold `vllm serve` each
    run         of a run's folder: share of the wall time under load, orchestration, and what a full grid with cold restarts would take
    streams     the load generator: what it adds to each chunk of 200 concurrent streams, on one core
    sampler     CPU that the device's sampler takes at 10 Hz
    memory      of the driver under Ray, over thousands of evaluations
    driver      of what this program itself holds of them, without Ray
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group(help=__doc__)
def main() -> None: ...


def say(found: dict[str, Any]) -> None:
    click.echo(json.dumps(found, indent=2))


@main.command()
@click.option("--starts", default=3, show_default=True, help="of each kind, in turns")
def switch(starts: int) -> None:
    """Cold and warm starts of the demo's engine in turns; a switch is stop and start, until `/health` and identity are proven."""
    from tests.benchmarks.waste.switch import measure

    say(measure(starts))


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--cold-s", type=float, required=True, help="a cold switch's seconds, from `switch`")
def run(folder: Path, cold_s: float) -> None:
    """From summary.json and the candidates' lines."""
    from tests.benchmarks.waste.run import of_run

    say(of_run(folder, cold_s))


@main.command()
@click.option("--streams", "n", default=200, show_default=True)
@click.option("--tokens", default=60, show_default=True)
@click.option("--every-ms", default=50.0, show_default=True)
def streams(n: int, tokens: int, every_ms: float) -> None:
    """A server of its own process and core notes when it hands each chunk to its socket; the generator when it has it (one clock)."""
    from tests.benchmarks.waste.streams import measure

    say(measure(n, tokens, every_ms / 1000))


@main.command()
@click.option("--seconds", default=10.0, show_default=True)
def sampler(seconds: float) -> None:
    """CPU seconds of this process with the sampler less without it, while nothing else happens in it."""
    from tests.benchmarks.waste.sampler import measure

    say(measure(seconds))


@main.command()
@click.option("--evaluations", default=5000, show_default=True)
def memory(evaluations: int) -> None:
    """The real driver under the real Ray with evaluations that do nothing; its resident memory at each tenth."""
    from tests.benchmarks.waste.memory import measure

    say(measure(evaluations))


@main.command()
@click.option("--evaluations", default=5000, show_default=True)
def driver(evaluations: int) -> None:
    """The search, the experiment's books and the progress, fed with lines of the size that real evaluations have."""
    from tests.benchmarks.waste.driver import measure

    say(measure(evaluations))


if __name__ == "__main__":
    main()
