"""The NVIDIA cards that this process may use."""

from __future__ import annotations

import contextlib
import itertools
import os

NO_CARDS = ("-1", "NoDevFiles")
"""What stands in CUDA_VISIBLE_DEVICES to hide all of them."""


def nvidia_cards() -> int:
    """Return how many cards NVML sees; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def visible_cards(n_there: int) -> list[str]:
    """The cards that CUDA_VISIBLE_DEVICES leaves of so many (indices, UUIDs or MIG instances, as they stand there), or all of them. CUDA sees none
    from the first index on that is no card (CUDA C++ Programming Guide, "CUDA_VISIBLE_DEVICES")."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not n_there:
        return [str(number) for number in range(n_there)]

    def is_card(name: str) -> bool:
        return name not in ("", *NO_CARDS) and (not name.lstrip("-").isdigit() or 0 <= int(name) < n_there)

    return list(itertools.takewhile(is_card, (name.strip() for name in visible.split(","))))


def visible_card() -> str:
    """The first card that CUDA_VISIBLE_DEVICES leaves to this process and all that it starts, as it stands there; `0` where it names none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return "0" if first in ("", *NO_CARDS) else first
