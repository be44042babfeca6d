"""What the preflight refuses of a space, once at the beginning of a run: said before it starts, kept with it, never launched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts import RunFolder
from tune_gpu.config import ExperimentConfig
from tune_gpu.errors import UserError
from tune_gpu.preflight import CalibrationStore, DeviceMemory
from tune_gpu.preflight.space_plan import Preflight, rows_of
from tune_gpu.space import Params, SearchSpace

FILE = "plan.json"
_MOST = 100_000


@dataclass(frozen=True)
class Refusals:
    """How many candidates get which verdict, and those that are refused with the reason in numbers."""

    counts: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[tuple[dict[str, Any], str], ...] = ()
    note: str = ""
    """Why nothing was planned, if so."""

    def allowed(self, space: SearchSpace) -> Callable[[Params], bool] | None:
        """The known constraint for the search; null if nothing is refused."""
        keys = {space.key(params) for params, _ in self.refused}
        return (lambda params: space.key(params) not in keys) if keys else None

    def describe(self) -> str:
        """One line for people."""
        if self.note:
            return f"preflight: {self.note}"
        counts = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in self.counts.items())
        return f"preflight: {counts}" + (f"; for example {self.refused[0][1]}" if self.refused else "")

    def write(self, folder: RunFolder) -> None:
        """`plan.json` of the run: a resumed run must refuse what it refused."""
        refused = [{"params": params, "reason": reason} for params, reason in self.refused]
        folder.write_json(FILE, {"schema_version": 1, "counts": dict(self.counts), "refused": refused, "note": self.note})

    @classmethod
    def read(cls, folder: RunFolder) -> Refusals:
        """Of a run; nothing is refused where there is no file. Raises UserError for a file that is none."""
        try:
            content = json.loads((folder.path / FILE).read_text())
            return cls(content["counts"], tuple((row["params"], row["reason"]) for row in content["refused"]), content["note"])
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder.path / FILE}: not a plan ({error})") from error


def plan_space(config: ExperimentConfig, device: DeviceMemory) -> Refusals:
    """Ask the preflight about every configuration of a finite space on this device beside its neighbours."""
    space = SearchSpace.from_specs(config.parameters)
    if not config.run.preflight or math.isinf(space.size) or space.size > _MOST:
        return Refusals(
            note="each candidate is asked about when its turn comes" if config.run.preflight else "switched off (run.preflight=false)"
        )
    try:
        columns, found = Preflight(config, device, CalibrationStore()).predict_space(space)
    except UserError as error:
        return Refusals(note=f"nothing is refused: {error}")
    rows = rows_of(columns, found)
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.prediction.verdict)] = counts.get(str(row.prediction.verdict), 0) + 1
    return Refusals(counts, tuple((row.params, row.prediction.reason) for row in rows if row.prediction.verdict == "infeasible"))
