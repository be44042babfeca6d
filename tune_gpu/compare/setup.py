"""Set up a comparison of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from tune_gpu.compare.measuring_actor import MeasurementClient, measured_as, measurement_client
from tune_gpu.compare.progress import PrintLine
from tune_gpu.compare.rounds import Rules
from tune_gpu.compare.samples import Replicate
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.workload.traffic_hash import planned_hash


def make_rules(config: ExperimentConfig, *, budget_s: float | None = None, max_rounds: int | None = None) -> Rules:
    """Return the rules of a comparison under this configuration."""
    settings = config.confirm
    most = max_rounds or settings.max_rounds
    return Rules(
        settings.confidence,
        min(settings.min_rounds, most),
        most,
        settings.budget_s if budget_s is None else budget_s,
        settings.windows or config.workload.windows,
        settings.tolerances,
        config.search.seed,
    )


def make_terms(config: ExperimentConfig, device: str, arms: Mapping[str, Mapping[str, Any]], windows: int) -> dict[str, Any]:
    """Return the terms that replicates must share to be counted together."""
    measured = comparison_config(config)
    return {
        "schema_version": 1,
        "arms": {name: dict(params) for name, params in arms.items()},
        "device": device,
        "seed": config.search.seed,
        "windows": windows,
        "window_s": config.confirm.window_s or config.workload.window_s,
        "capacity": config.confirm.capacity,
        "services": asdict(config.services),
        "traffic": planned_hash(measured),
    }


def comparison_config(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration under which a comparison measures."""
    settings = config.confirm
    return measured_as(config, capacity=settings.capacity, windows=settings.windows, window_s=settings.window_s)


def comparison_client(config: ExperimentConfig, device: str, resources: Mapping[str, float], print_line: PrintLine) -> Any:
    """Return the client of a measuring actor that has the windows of a comparison."""
    return measurement_client(comparison_config(config), device, resources, print_line)


def measure_in(client: MeasurementClient, arms: Mapping[str, Mapping[str, Any]]) -> Callable[[str, int, int], Replicate]:
    """Return the function by which `PairedExperiment` measures a replicate."""
    return lambda arm, number, first_window: client.replicate(arm, number, arms[arm], first_window)
