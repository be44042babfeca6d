"""What a finished run spent its time on, and what the same answer would have cost a full grid with a cold restart for each candidate."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import yaml

from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.space import SearchSpace


def of_run(folder: Path, cold_s: float) -> dict[str, Any]:
    """Shares of the search's wall time (from the start of Python to its end, Ray included; without the confirmation), and the grid's time.

    The grid measures every configuration of the space; for the same confidence in its winner each needs as many windows as this run gave
    its winner (nobody knows beforehand which it is). A configuration costs a cold switch (given), and this run's own medians of Whisper's
    start, the warm-up and the load of one evaluation, the load as often as the winner was evaluated.
    """
    summary = json.loads((folder / "summary.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    lines = [json.loads(line) for path in sorted(folder.glob("gen_*_candidates.jsonl")) for line in path.read_text().splitlines()]
    measured = [line["duration_s"] for line in lines if line["status"] == "ok"]
    known = ParameterSpec.__dataclass_fields__.keys()
    size = SearchSpace.from_specs(
        {name: ParameterSpec(**{k: v for k, v in spec.items() if k in known}) for name, spec in config["parameters"].items()}
    ).size
    costs, times = summary["costs"], summary["best"]["n_evaluations"]
    whisper = statistics.median(d["start_by_part"]["whisper"] for d in measured)
    warm, load = statistics.median(d["warm"] for d in measured), statistics.median(d["load"] for d in measured)
    grid_s = size * (cold_s + whisper + warm + times * load)
    once_s = size * (cold_s + whisper + warm + load)
    wall_s = costs["wall_s"] - costs["confirm_s"]  # the comparison with the baseline afterwards is another question
    return {
        "wall_s_without_confirmation": wall_s, "confirm_s": costs["confirm_s"], "measuring_share": costs["load_s"] / wall_s, "orchestration_share": costs["orchestration_s"] / wall_s,
        "shares": {name: round(costs[f"{name}_s"] / wall_s, 4) for name in ("start", "warm", "load", "stop", "orchestration", "setup")},
        "configurations": size, "winner_evaluations": times, "winner_windows": summary["best"]["n_windows"],
        "grid_same_confidence_s": grid_s, "ratio_same_confidence": grid_s / wall_s, "grid_once_s": once_s, "ratio_once": once_s / wall_s,
    }  # fmt: skip
