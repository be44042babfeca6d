"""Choose the kind of device of a run. The choice is printed in one line, and there is no silent fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from tune_gpu.common.catalogue import FITNESS_TERMS, Catalogue
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.common.metric import Reading as CardReading
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.metrics import PAIR
from tune_gpu.telemetry.cuda_visible import nvidia_cards, visible_cards
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.probe import Reading

_REPORTED: Mapping[CardReading, Callable[[Reading], bool]] = {
    CardReading.UTILIZATION: lambda reading: reading.utilization_pct is not None,
    CardReading.POWER: lambda reading: reading.power_w is not None or reading.energy_j is not None,
    CardReading.MEMORY: lambda reading: reading.used_mib is not None,
    CardReading.PROCESS_MEMORY: lambda reading: _reports_processes(reading),
}
"""Reading -> whether a card reports it."""


@dataclass(frozen=True)
class DeviceChoice:
    """The chosen kind of device, and the reason."""

    kind: str
    """`cuda` or `cpu`."""
    why: str
    n_cards: int


def choose_device(requested: str, missing_here: Callable[[str], str | None] = lambda _kind: None, *, cluster_gpus: int | None = None) -> DeviceChoice:
    """Choose the device from what was requested and what exists.

    Args:
        requested: `auto`, `cuda` or `cpu`.
        missing_here: returns what the services lack for a kind of device on this machine, and how to install it, or None.
        cluster_gpus: number of cards of the joined Ray cluster; None for this machine only.

    Raises:
        UserError: `cuda` was requested, but there is no card, or the services' programs for it are not installed.
    """
    if requested == "cpu":
        return DeviceChoice("cpu", "device=cpu was set: measuring on the CPU", 0)
    cards = cards_here() if cluster_gpus is None else cluster_gpus
    none = "no NVIDIA GPU was found (NVML lists none)" if cluster_gpus is None else "no node of the Ray cluster has a GPU"
    missing = None if cards else none
    if cards and cluster_gpus is None and (lacking := missing_here("cuda")) is not None:
        problem, _, remedy = lacking.removesuffix(".").partition(". ")
        missing = f"there is a GPU, but {problem}{f' ({remedy})' if remedy else ''}"
    if missing is None:
        return DeviceChoice("cuda", f"measuring on {cards} NVIDIA GPU{'s' if cards > 1 else ''}", cards)
    if requested == "cuda":
        raise UserError(f"device=cuda: {missing}. Set device=cpu.")
    return DeviceChoice("cpu", f"{missing}: measuring the same services on the CPU (device: cpu in every artifact)", 0)


def cards_here() -> int:
    """Return how many cards of this machine this process may use."""
    return len(visible_cards(nvidia_cards()))


def _reports_processes(reading: Reading) -> bool:
    """Return False if a process's memory is missing. Before a run the card may have no process; then nothing is known to be missing."""
    return reading.processes is not None and None not in reading.processes.values()


def read_from_the_card(catalogue: Catalogue = PAIR) -> dict[str, CardReading]:
    """Return the metrics that need a reading that not every card reports."""
    return {path: metric.needs.reading for path, metric in catalogue.objective_paths().items() if metric.needs.reading}


def check_reported(objective: ObjectiveSettings, kind: str, objectives: Iterable[str] = (), catalogue: Catalogue = PAIR) -> None:
    """Raise UserError if a term of the fitness, a limit or one of `search.objectives` needs a reading that this machine's card does not report.

    Otherwise no candidate could get a fitness or a place on the front.
    """
    weighed = {f"objective.weights.{name}": (weight, f"{FITNESS_TERMS}.{name}") for name, weight in objective.weights.items() if weight}
    readings = read_from_the_card(catalogue)
    asked = [(f"{key}={weight:g}", readings[path], "Set it to 0.") for key, (weight, path) in weighed.items() if path in readings]
    asked += [(f"search.objectives.{path}", reading, "Remove it from search.objectives.") for path, reading in readings.items() if path in objectives]
    asked += [(f"objective.limits.{path}", reading, "Remove it.") for path, reading in readings.items() if path in objective.limits]
    if kind != "cuda" or not asked:
        return
    try:
        with closing(open_probe(kind)) as probe:
            reading = probe.read()
    except ServiceError as error:
        raise UserError(f"device=cuda: {error}") from error
    for key, needed, remedy in asked:
        if not _REPORTED[needed](reading):
            mig = " (no MIG instance does)" if needed is CardReading.UTILIZATION else ""
            raise UserError(f"{key}: {probe.info.name} does not report {needed}{mig}. {remedy}")


def same_size(one_mib: float | None, other_mib: float | None) -> bool:
    """Return True if two memory sizes agree within 3 %, or if one is unknown, so that only the cards' names can be compared."""
    return one_mib is None or other_mib is None or abs(one_mib / other_mib - 1) < 0.03
