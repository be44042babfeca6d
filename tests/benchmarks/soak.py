"""Deploy four configurations of the default space again and again, in random order, on the real CPU services.

    python -m tests.benchmarks.soak OUT.jsonl --repeats 15

Each deployment is a line as in a run's artifacts: `python -m tests.benchmarks.coverage OUT.jsonl` reads them. The same command again goes on after
the last whole line. One deployment takes about half a minute. Nothing else should run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np

from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.evaluation.record import record_of
from tune_gpu.search.evaluations import Candidate

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"vllm_memory_util": 0.15, "vllm_cores": "0", "whisper_model_size": "base", "whisper_cores": "1"},
    {"vllm_memory_util": 0.20, "vllm_cores": "0", "whisper_model_size": "base", "whisper_cores": "1"},
    {"vllm_memory_util": 0.10, "vllm_cores": "0", "whisper_model_size": "tiny.en", "whisper_cores": "1"},
    {"vllm_memory_util": 0.20, "vllm_cores": "0-1", "whisper_model_size": "tiny.en", "whisper_cores": "0-1"},
)
"""Those of the first soak."""


class Evaluates(Protocol):
    """The part of an evaluator that a soak calls."""

    def evaluate(self, params: Mapping[str, Any]) -> Measurement:
        """Deploy a configuration and measure it."""


def order(repeats: int, seed: int) -> list[int]:
    """Return which configuration is deployed when: each of them `repeats` times, in random order."""
    return [int(c) for c in np.random.default_rng(seed).permutation(np.repeat(np.arange(len(CONFIGURATIONS)), repeats))]


def whole_lines(out: Path, planned: Sequence[int]) -> list[dict[str, Any]]:
    """Return what an earlier command measured, and cut off a last line that is not whole.

    Raises:
        UserError: the file is of another plan.
    """
    text = out.read_text() if out.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        same = len(lines) <= len(planned) and all(line["c"] == c for line, c in zip(lines, planned, strict=False))
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(f"{out}: these are not the deployments of this plan. Give the --repeats and --seed that it began with, or another file.")
    if whole != text:
        out.write_text(whole)
    return lines


def soak(evaluator: Evaluates, out: Path, planned: Sequence[int]) -> None:
    """Deploy what is left of the plan; each line is written when it is measured."""
    for number in range(len(whole_lines(out, planned)), len(planned)):
        c, started_at, began = planned[number], now(), time.monotonic()
        measurement = evaluator.evaluate(CONFIGURATIONS[c])
        candidate = Candidate(f"soak-{number}", 0, "soak", CONFIGURATIONS[c])
        record = record_of(candidate, measurement, started_at=started_at, wall_s=time.monotonic() - began)
        with out.open("a") as file:
            file.write(json.dumps({"c": c} | record.dump()) + "\n")
        fitness = "no fitness" if record.fitness is None else f"fitness {record.fitness:.4f} ± {record.fitness_stderr or 0.0:.4f}"
        click.echo(f"{number + 1} of {len(planned)}: configuration {c} {record.status}, {fitness}, {record.wall_s} s", err=True)


@click.command(help=__doc__)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[key=value …]")
@click.option("--repeats", default=15, show_default=True, type=click.IntRange(min=1), help="Deployments of each configuration.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the order.")
def main(out: Path, overrides: tuple[str, ...], repeats: int, seed: int) -> None:
    from tune_gpu.config.loader import load_config
    from tune_gpu.evaluation.evaluator import Evaluator

    try:
        planned = order(repeats, seed)
        whole_lines(out, planned)  # before anything is started
        evaluator = Evaluator(load_config("spica_gpu_allocation", list(overrides), "cpu"), "cpu")
        try:
            soak(evaluator, out, planned)
        finally:
            evaluator.close()
    except UserError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
