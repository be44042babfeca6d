"""Read a run that has ended with a winner, for `compare` and `promote`. Each error is one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tune_gpu.artifacts.reading import decided, find_run, read_folder
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_run_config
from tune_gpu.config.overrides import key_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.texts import check_name
from tune_gpu.search.space import SearchSpace


@dataclass(frozen=True)
class FinishedRun:
    """The results of a run."""

    folder: RunFolder
    config: ExperimentConfig
    summary: RunSummary
    winner: dict[str, Any]
    """The parameters of its best configuration."""
    device: DeviceRecord
    lines: tuple[EvaluationRecord, ...]
    traffic: str | None = None
    """Hash of its traffic; None if an older program measured it."""


def read_finished_run(artifacts_dir: str, run_id: str, overrides: list[str], command: str, *, trust: bool = False) -> FinishedRun:
    """Read a run that has a winner.

    Args:
        artifacts_dir: folder of the runs.
        run_id: name of the run.
        overrides: settings that replace the run's own (`run.*`, `ray.*`, `confirm.*`, `promote.*`).
        command: the calling command, for messages.
        trust: whether the user declares that the run is their own.

    Raises:
        UserError: the run does not exist, has not ended or has no winner, or its artifacts are invalid.
    """
    allowed = ("run.", "ray.", "confirm.", "promote.")
    if foreign := [override for override in overrides if not key_of(override).startswith(allowed)]:
        raise UserError(
            f"{foreign[0]}: {command} uses the settings that the run was measured with; only run.*, ray.*, confirm.* and promote.* may be overridden"
        )
    folder = find_run(artifacts_dir, run_id)
    check_name("name", folder.experiment)  # the names come from a folder's path; they are printed and used in paths
    check_name("run_id", folder.run_id)
    record = read_folder(folder)
    summary, best = decided(record)
    config = load_run_config(folder.path, overrides, trust=trust)
    if config.name != folder.experiment:
        raise UserError(f"{folder.path / 'config.yaml'}: belongs to the experiment {config.name!r}, not to {folder.experiment!r}")
    if unknown := sorted(set(best.params) - set(config.parameters)):
        raise UserError(f"{folder.path / 'summary.json'}: its best configuration has the parameter {unknown[0]}, which is not in config.yaml")
    try:
        SearchSpace.from_specs(config.parameters).check(best.params)  # config.yaml is sealed, summary.json is not
    except UserError as error:
        raise UserError(f"{folder.path / 'summary.json'}: its best configuration is not in the space of config.yaml ({error})") from error
    return FinishedRun(folder, config, summary, dict(best.params), record.device or DeviceRecord(kind=summary.device), record.lines, record.traffic)
