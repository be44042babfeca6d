"""Choice of the probe that reads a device."""

from __future__ import annotations

from tune_gpu.telemetry.cuda_visible import visible_card
from tune_gpu.telemetry.probe import Probe


def open_probe(kind: str, cuda_device: str | None = None) -> Probe:
    """The probe for a device of this kind; a card by index, UUID or MIG string, as in CUDA_VISIBLE_DEVICES (null: the first of that)."""
    if kind == "cpu":
        from tune_gpu.telemetry.cpu import CpuProbe

        return CpuProbe()
    from tune_gpu.telemetry.nvml import NvmlProbe

    return NvmlProbe(visible_card() if cuda_device is None else cuda_device)
