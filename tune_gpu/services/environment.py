"""Layers of a service's environment, the same for a measured and a deployed one."""

from __future__ import annotations

from collections.abc import Mapping

CARD_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Count cards as NVML does, which proves the card; vLLM warns about the other order."""


def layered(
    common: Mapping[str, str], place: Mapping[str, str], users: Mapping[str, str], evaluation: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the variables of a service. The user's have precedence over ours, and those of an evaluation over the user's."""
    if evaluation is None:
        return {**common, **place, **users}
    return {**common, **users, **place, **evaluation}
