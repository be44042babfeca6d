"""Find the NVIDIA cards that this process may use."""

from __future__ import annotations

import contextlib
import itertools
import os

NO_CARDS = ("-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all cards."""


def nvidia_cards() -> int:
    """Return how many cards NVML sees, 0 without a driver."""
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
    """Return the cards that CUDA_VISIBLE_DEVICES allows, as it names them (indices, UUIDs or MIG instances), or all indices if it is not
    set.

    CUDA ignores the first invalid index and everything after it (CUDA C++ Programming Guide, "CUDA_VISIBLE_DEVICES").
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not n_there:
        return [str(number) for number in range(n_there)]

    def is_card(name: str) -> bool:
        return name not in ("", *NO_CARDS) and (not name.lstrip("-").isdigit() or 0 <= int(name) < n_there)

    return list(itertools.takewhile(is_card, (name.strip() for name in visible.split(","))))


def visible_card() -> str:
    """Return the first card that CUDA_VISIBLE_DEVICES allows, as it names it, or `0` if it names none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return "0" if first in ("", *NO_CARDS) else first
