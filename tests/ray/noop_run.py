"""The real way of a run through Ray (Tuner, R-Zero, placement groups, retries, artifacts) with trials of `noop`: the driver's side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.spica import SpicaTrainable
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.progress import Progress
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.run import Experiment
from tune_gpu.telemetry.device_choice import DeviceChoice

ANY_NUMBER = "{target: vllm.max_num_seqs, low: 1, high: 1000000}"


def experiment(
    folder: Path, trainable: type[SpicaTrainable], kind: str, n_cards: int, *overrides: str, parameter: str = f"x={ANY_NUMBER}",
    baseline: Mapping[str, Any] | None = None,
) -> Experiment:
    """One run of one generation over one parameter, in the Ray that is up."""
    settings = [f"parameters.{parameter}", "search.generations=1", "search.recheck=0", "workload.windows=1", "confirm.enabled=false", f"run.artifacts_dir={folder}"]
    config = load_config("spica_gpu_allocation", [*settings, *overrides], None)
    name = parameter.partition("=")[0]
    config.parameters = {name: config.parameters[name]}
    config.baseline = dict(baseline or {})
    run = RunFolder(folder, "noop", "run")
    run.create("name: noop\n")
    progress = Progress(Console(file=open(os.devnull, "w")), 1, [name], quiet=True)  # noqa: SIM115
    made = Experiment(config, DeviceChoice(kind, "made up", n_cards), run, progress, Refusals())
    made.trainable = trainable
    return made
