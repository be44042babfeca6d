"""The candidates that the preflight check refuses. They are computed once before a run starts, printed, kept in its folder, and never
launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.space_columns import is_grid
from tune_gpu.evaluation.memory_check.space_plan import PlanRow, Preflight, params_of, rows_of
from tune_gpu.search.space import Params, SearchSpace
from tune_gpu.services.earlier_starts import EarlierStarts
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.predictions import VERDICTS, Predictions
from tune_gpu.services.registry import calibrations_of

FILE = "plan.json"
_REASONS = 5_000
_MOST_DRAWN = 2000


@dataclass(frozen=True)
class Refusals:
    """The number of candidates with each verdict, and the refused ones with the reason in numbers."""

    counts: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[tuple[dict[str, Any], str], ...] = ()
    note: str = ""
    """Why there is no plan; "" if there is one."""
    candidates: tuple[Mapping[str, Any], ...] = ()
    """The predictions of the first 2000 candidates, for the memory map of the report."""

    def allowed(self, space: SearchSpace) -> Callable[[Params], bool] | None:
        """Return the known constraint of the search, or None if nothing is refused."""
        keys = {space.key(params) for params, _ in self.refused}
        return (lambda params: space.key(params) not in keys) if keys else None

    def describe(self) -> str:
        """Return the refusals as one line of text."""
        if self.note:
            return f"preflight: {self.note}"
        counts = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in self.counts.items())
        return f"preflight: {counts}" + (f"; for example {self.refused[0][1]}" if self.refused else "")

    def write(self, folder: RunFolder) -> None:
        """Write `plan.json` of the run: a resumed run must refuse the same candidates."""
        refused = [{"params": params, "reason": reason} for params, reason in self.refused]
        folder.write_json(
            FILE,
            {"schema_version": 1, "counts": dict(self.counts), "refused": refused, "note": self.note, "candidates": list(self.candidates)},
        )

    @classmethod
    def read(cls, folder: RunFolder) -> Refusals:
        """Return the refusals of a run, empty if it has no such file. Raise UserError for an invalid file."""
        try:
            content = outside_files.read_json(folder.path / FILE, outside_files.RUN_FILE)
            return cls(content["counts"], tuple((row["params"], row["reason"]) for row in content["refused"]), content["note"],
                       tuple(content.get("candidates", ())))  # fmt: skip
        except outside_files.NotThere:
            return cls()
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder.path / FILE}: not a plan ({error}). Restore the run's folder, or start a new run.") from error


def plan_space(config: ExperimentConfig, device: DeviceMemory) -> Refusals:
    """Check every configuration of a finite space on this device, with the memory that its neighbours use."""
    if not config.run.preflight:
        return Refusals(note="switched off (run.preflight=false)")
    space = SearchSpace.from_specs(config.parameters)
    if is_grid(space):
        return Refusals(note="each candidate is checked just before it starts")
    try:
        columns, found = Preflight(config, device, calibrations_of(config.services), starts=EarlierStarts()).predict_space(space)
    except UserError as error:
        return Refusals(note=f"nothing is refused: {error}")
    counts = {str(verdict): found.count(verdict) for verdict in VERDICTS if found.count(verdict)}
    refused = tuple((params_of(columns, index), _reason(found, index, number)) for number, index in enumerate(found.refused()))
    return Refusals(counts, refused, candidates=tuple(_drawn(row) for row in rows_of(columns, found, _MOST_DRAWN)))


def _drawn(row: PlanRow) -> dict[str, Any]:
    prediction = row.prediction
    return {
        "params": row.params,
        "verdict": str(prediction.verdict),
        "parts_mib": {name: round(mib, 1) for name, mib in prediction.parts_mib.items()},
        "kv_cache_tokens": prediction.kv_cache_tokens.value if prediction.kv_cache_tokens else None,
        "headroom_mib": None if prediction.headroom_mib is None else round(prediction.headroom_mib, 1),
    }


def _reason(found: Predictions, index: int, number: int) -> str:
    """Return the reason with numbers, shortened after the first few thousand candidates."""
    return found.explain(index).reason if number < _REASONS else f"short of {found.shortfall_mib[index]:.0f} MiB"
