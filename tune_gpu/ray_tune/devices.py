"""Find the device of a run, on this machine or on a cluster."""

from __future__ import annotations

from functools import partial

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.config.schema import ExperimentConfig, RaySettings
from tune_gpu.services.cards import fewest_cards
from tune_gpu.services.registry import missing_here
from tune_gpu.telemetry.cuda_visible import nvidia_cards, visible_cards
from tune_gpu.telemetry.device_choice import DeviceChoice, choose_device, same_size
from tune_gpu.telemetry.open import open_probe


def device_of(config: ExperimentConfig) -> DeviceChoice:
    """Return the device of an existing run, on its cluster or on this machine. Raise UserError if the device is not available."""
    return choose_device(config.device, partial(missing_here, config.services), cluster_gpus=cards_of_cluster(config.ray) if config.device == "cuda" else None)


def cards_of_cluster(settings: RaySettings) -> int | None:
    """Return the number of GPUs of the cluster, or None if the run uses only this machine."""
    if settings.address is None:
        return None
    import ray

    from tune_gpu.ray_tune.session import local_or_joined_ray

    with local_or_joined_ray(settings):
        return int(ray.cluster_resources().get("GPU", 0))


def check_homogeneous(config: ExperimentConfig, kind: str) -> None:
    """Raise UserError if Ray might assign different kinds of card to two candidates.

    Their results could not be compared, and candidates that do not fit on the first card would be refused on all. An engine that spans all
    cards always uses the same ones.
    """
    names = visible_cards(nvidia_cards()) if kind == "cuda" else []
    if len(names) < 2 or fewest_cards(config) >= len(names):
        return
    alike: dict[tuple[str, float | None], list[str]] = {}
    for name in names:
        try:
            probe = open_probe(kind, name)
        except ServiceError as error:
            raise UserError(f"device=cuda: {error}") from error
        card, mib = probe.info.name, probe.info.total_mib
        probe.close()
        # Cards with one name may have different sizes, but a few retired pages do not count as a difference.
        same = next((other for other in alike if other[0] == card and same_size(other[1], mib)), (card, mib))
        alike.setdefault(same, []).append(name)
    if len(alike) > 1:
        kinds = "; ".join(f"{','.join(named)}: {card} of {'unknown memory' if mib is None else f'{mib:.0f} MiB'}" for (card, mib), named in alike.items())
        raise UserError(f"device=cuda: the cards differ ({kinds}), and candidates measured on different cards cannot be compared. "
                        f"Set CUDA_VISIBLE_DEVICES to cards of one kind: {' or '.join(','.join(named) for named in alike.values())}.")
