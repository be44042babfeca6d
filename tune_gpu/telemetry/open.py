"""Open the probe of a device."""

from __future__ import annotations

from tune_gpu.telemetry.cuda_visible import visible_card
from tune_gpu.telemetry.probe import Probe


def open_probe(kind: str, cuda_device: str | None = None) -> Probe:
    """Return the probe of a device of this kind. A card is named by index, UUID or MIG name, as in CUDA_VISIBLE_DEVICES (None for
    the first one listed there)."""
    if kind == "cpu":
        from tune_gpu.telemetry.cpu import CpuProbe

        return CpuProbe()
    from tune_gpu.telemetry.nvml import NvmlProbe

    return NvmlProbe(visible_card() if cuda_device is None else cuda_device)
