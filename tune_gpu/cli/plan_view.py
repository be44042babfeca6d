"""Print a plan: a table of candidates or a map of a large space, the memory of each part, and why a candidate cannot start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tune_gpu.common.default_pair import LLM
from tune_gpu.common.wording import counted
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.memory_check.cards import cards
from tune_gpu.evaluation.memory_check.space_columns import is_grid
from tune_gpu.evaluation.memory_check.space_plan import PlanRow, Preflight, rows_of
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.values import to_builtin
from tune_gpu.services.base import Versioned
from tune_gpu.services.memory_values import MemoryVerdict, Prediction
from tune_gpu.services.predictions import VERDICTS, Predictions
from tune_gpu.services.registry import services_of

ROWS = 60
"""Largest number of candidates in a table, unless `--rows` sets another. More are drawn as a map."""
_MOST_VALUES = 12
"""Largest number of values of one parameter in a map."""
_MOST_BUDGETS = 4
_OF_AN_ENGINE = frozenset({"weights", "activation", "cuda_graphs", "non_torch", "kv", "neighbours"})
_STYLE = {MemoryVerdict.FITS: "green", MemoryVerdict.UNCERTAIN: "yellow", MemoryVerdict.INFEASIBLE: "red", MemoryVerdict.NOT_MODELLED: "dim"}


def print_plan(console: Console, config: ExperimentConfig, preflight: Preflight, params: Mapping[str, np.ndarray], found: Predictions, rows: int = ROWS) -> None:
    """Print the device, then a table of all candidates or a map, then the counts."""
    device = preflight.device
    console.print(
        f"[bold]{config.name}[/] on {device.name} ({device.kind}): {device.total_mib:.0f} MiB, {device.used_mib:.0f} MiB used by other processes; "
        f"{_versions(preflight)}", highlight=False, soft_wrap=True,
    )
    for name, read_from in preflight.models().items():
        console.print(Text(f"memory of {name}: from {read_from}"), soft_wrap=True)
    for name, taken in preflight.from_starts().items():
        console.print(Text(f"memory of {name}: {taken}"), soft_wrap=True)
    if len(found) <= rows:
        listed = rows_of(params, found)
        console.print(_table(list(params), listed, several=sum(service.gpus.share is not None for service in services_of(config.services)) > 1))
        for line in _accounts(listed):
            console.print(line, highlight=False, soft_wrap=True)
    else:
        console.print(_map(config, params, found, console.width))
        for verdict in (MemoryVerdict.INFEASIBLE, MemoryVerdict.UNCERTAIN, MemoryVerdict.NOT_MODELLED):
            places = np.flatnonzero(found.verdict == VERDICTS.index(verdict))
            if len(places):
                example = _at(params, int(places[0]))
                console.print(Text(f"{str(verdict).replace('_', ' ')}, for example {example}: {found.explain(int(places[0])).reason}"), soft_wrap=True)
    grid = " (a grid in a larger space)" if is_grid(SearchSpace.from_specs(config.parameters)) else ""
    counts = ", ".join(f"[{_STYLE[verdict]}]{found.count(verdict)} {str(verdict).replace('_', ' ')}[/]" for verdict in VERDICTS if found.count(verdict))
    console.print(f"{counted(len(found), 'candidate')}{grid}: {counts}", highlight=False)


def _table(names: Sequence[str], rows: Sequence[PlanRow], *, several: bool) -> Group:
    """Return the candidates, and below them why some cannot start or are uncertain. Each reason appears once, with its number.

    A verdict is of all services together. If several reserve memory, the numbers are those of the one with the least to spare.
    """
    table = Table(header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for title in ("verdict", "why", *(["tightest"] if several else []), "KV tokens", "sequences", "headroom MiB"):
        table.add_column(title, justify="left" if title in ("verdict", "tightest") else "right", overflow="fold")
    reasons: dict[str, int] = {}
    for row in rows:
        prediction, style = row.prediction, _STYLE[row.prediction.verdict]
        number = "" if prediction.verdict is MemoryVerdict.FITS else str(reasons.setdefault(prediction.reason, len(reasons) + 1))
        table.add_row(
            *(_text(row.params.get(name)) for name in names), f"[{style}]{str(prediction.verdict).replace('_', ' ')}[/]", number, *([prediction.service or "-"] if several else []),
            f"{prediction.kv_cache_tokens.value:,}" if prediction.kv_cache_tokens else "-",
            f"{prediction.max_concurrency:.2f}" if prediction.max_concurrency is not None else "-",
            f"{prediction.headroom_mib:.0f}" if prediction.headroom_mib is not None else "-",
        )
    return Group(table, *(Text(f"{number}: {reason}") for reason, number in reasons.items()))


def _accounts(rows: Sequence[PlanRow]) -> list[str]:
    """Return the memory in an engine's share besides the KV cache, one line for each different budget, and the memory of the other services."""
    budgets: dict[str, Prediction] = {}
    others: dict[str, set[float]] = {}
    for row in rows:
        if parts := row.prediction.parts_mib:
            text = " + ".join(f"{parts.get(name, 0.0):.0f} {name.replace('_', ' ').replace('cuda', 'CUDA')}" for name in ("weights", "activation", "cuda_graphs", "non_torch") if parts.get(name))
            if text:  # a space without an engine has none
                budgets.setdefault(text, row.prediction)
            for name in parts.keys() - _OF_AN_ENGINE:
                others.setdefault(name, set()).add(parts[name])
    lines = [f"other memory in {_owner(prediction)} share, MiB: {text}{' (measured)' if prediction.calibrated else f' (± {prediction.uncertainty_mib:.0f})'}" for text, prediction in list(budgets.items())[:_MOST_BUDGETS]]
    if len(budgets) > _MOST_BUDGETS:
        lines.append(f"… and {len(budgets) - _MOST_BUDGETS} more; --json lists all")
    if beside := [_range(name, mib) for name, mib in sorted(others.items()) if max(mib)]:
        lines.append(f"beside it, MiB: {', '.join(beside)}")
    return lines


def _versions(preflight: Preflight) -> str:
    kinds = {service.kind.name: service.kind for service in services_of(preflight.config.services)}
    return ", ".join(f"{kind.label} {preflight.versions[name]}" for name, kind in kinds.items() if isinstance(kind, Versioned))


def _owner(prediction: Prediction) -> str:
    return f"{prediction.service}'s" if prediction.service not in ("", LLM.name) else f"{LLM.title}'s"


def _range(name: str, mib: set[float]) -> str:
    low, high = min(mib), max(mib)
    return f"{name} {low:.0f}" + (f" to {high:.0f}" if high > low else "")


def _map(config: ExperimentConfig, params: Mapping[str, np.ndarray], found: Predictions, width: int = 120) -> Table:
    """Return a map over vLLM's share: the KV cache, its sequences, and for each value of the other parameters the fraction of candidates
    that may be launched."""
    across = next((name for name, spec in config.parameters.items() if spec.target.endswith(".gpu_memory_utilization")), next(iter(params)))
    columns = {name: np.array([_text(to_builtin(value)) for value in values]) for name, values in params.items()}
    labels = {name: [_label(name, value) for value in _some(_values(given))] for name, given in params.items() if name != across}
    widest = max(len(label) for label in ("sequences from", *(label for group in labels.values() for label in group)))
    shares = _some(_values(params[across]), max(3, (width - widest - 4) // 8))
    places = [np.flatnonzero(columns[across] == _text(share)) for share in shares]
    table = Table(title=f"by {across}: the fraction of candidates that may be launched", header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    for share in shares:
        table.add_column(_text(share), justify="right", no_wrap=True)
    for title, values in (("KV tokens from", found.kv_cache_tokens), ("to", found.kv_cache_tokens), ("sequences from", found.max_concurrency), ("to", found.max_concurrency)):
        table.add_row(f"[dim]{title}[/]", *(_end(values[here][found.allowed[here]], title) for here in places))
    table.add_section()
    table.add_row("all", *(_part(found.allowed[here]) for here in places))
    for name, given in params.items():
        if name == across:
            continue
        table.add_section()
        for value in _some(_values(given)):
            table.add_row(_label(name, value), *(_part(found.allowed[here[columns[name][here] == _text(value)]]) for here in places))
    return table


def _end(values: np.ndarray, title: str) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    value = float(known.max() if title == "to" else known.min())
    return f"{value / 1000:.0f}k" if value >= 10000 else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _part(allowed: np.ndarray) -> str:
    if not len(allowed):
        return "-"
    part = float(allowed.mean())
    style = "green" if part == 1 else "red" if part == 0 else "yellow"
    text = "all" if part == 1 else "none" if part == 0 else f"{min(max(100 * part, 1), 99):.0f} %"
    return f"[{style}]{text}[/]"


def _label(name: str, value: Any) -> str:
    return f"{name}={_text(value)}" if value is not None else f"{name} not active"


def _some(values: list[Any], most: int = _MOST_VALUES) -> list[Any]:
    """Return at most a dozen values, evenly spaced."""
    most = min(most, _MOST_VALUES)
    if len(values) <= most:
        return values
    return [values[round(place)] for place in np.linspace(0, len(values) - 1, most)]


def cards_table() -> Table:
    """Return the table of cards that are known by name."""
    table = Table(header_style="bold", pad_edge=False)
    for title in ("card", "MiB (nvidia-smi)", "MiB (CUDA)"):
        table.add_column(title, justify="left" if title == "card" else "right")
    for card in cards().values():
        table.add_row(card.name, f"{card.nvml_mib:.0f}", f"{card.cuda_mib:.0f}")
    return table


def _at(params: Mapping[str, np.ndarray], index: int) -> str:
    return ", ".join(f"{name}={_text(to_builtin(values[index]))}" for name, values in params.items() if values[index] is not None)


def _values(column: np.ndarray) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in column:
        seen.setdefault(_text(to_builtin(value)), to_builtin(value))
    return list(seen.values())


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
