"""Describe the device of a run for its artifacts."""

from __future__ import annotations

from contextlib import closing

from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.telemetry.device_choice import DeviceChoice
from tune_gpu.telemetry.neighbours import Neighbours, neighbours_on
from tune_gpu.telemetry.open import open_probe


def describe_device(choice: DeviceChoice, of_cluster: bool = False) -> tuple[DeviceRecord, Neighbours]:
    """Return the device and its current co-tenants. On a cluster each candidate's record describes its own device. Raise UserError if the
    device cannot be read."""
    elsewhere = DeviceRecord.parse({"kind": "cuda", "name": f"{choice.n_cards} GPUs of the Ray cluster"}, "the device")
    if choice.kind == "cuda" and not _nvml_here():
        return elsewhere, Neighbours()
    try:
        with closing(open_probe(choice.kind)) as probe:
            return DeviceRecord.parse(probe.info.as_dict(), "the device"), neighbours_on(probe)
    except ServiceError as error:
        if of_cluster:  # for example, MIG divides a card of this machine: the run may use other cards
            return elsewhere, Neighbours()
        raise UserError(f"device={choice.kind}: {error.failure.message}") from error


def _nvml_here() -> bool:
    from tune_gpu.telemetry.cuda_visible import nvidia_cards

    return nvidia_cards() > 0
