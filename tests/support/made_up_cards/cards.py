"""Cards that hold the processes that were started for them. Each has 12 GiB."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.fake_nvml import FakeNvml, Frame

_MIB = 2**20
_LISTED_FOR_S = 0.02
"""Shorter than a server takes to start: a list from before its start would not prove that it is on its card."""


def on_card(card: str) -> dict[int, int]:
    """Process id -> MiB, of the processes that have the card in CUDA_VISIBLE_DEVICES and a variable MADE_UP_MIB."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = dict(each.partition(b"=")[::2] for each in (folder / "environ").read_bytes().split(b"\0"))
            watches = b"guard.py" in (folder / "cmdline").read_bytes()  # it has the variables of what it watches, and uses no card
            if variables.get(b"CUDA_VISIBLE_DEVICES") == card.encode() and b"MADE_UP_MIB" in variables and not watches:
                found[int(folder.name)] = int(variables[b"MADE_UP_MIB"])
    return found


class Cards(FakeNvml):
    """Every `GPU-…` is a card."""

    def __init__(self) -> None:
        super().__init__([Frame()])
        self._listed: dict[str, tuple[float, dict[int, int]]] = {}

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not uuid.startswith("GPU-"):
            raise self.NVMLError_NotFound("Not Found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=12288 * _MIB, used=(500 + sum(self._on(handle).values())) * _MIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=mib * _MIB) for pid, mib in self._on(handle).items()]

    def _on(self, card: str) -> dict[int, int]:
        """The list of now: all readings of a moment have the same."""
        at, listed = self._listed.get(card, (0.0, {}))
        if time.monotonic() - at > _LISTED_FOR_S:
            listed = on_card(card)
            self._listed[card] = time.monotonic(), listed
        return listed
