"""Cards by name, and this machine's devices as vLLM sees them: without a GPU and without vLLM installed."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.memory_check.card_names import gb_in_name, matching
from tune_gpu.services.memory_values import DeviceMemory

NODE_FOLDER = Path("/sys/devices/system/node")
CGROUP_FOLDER = Path("/sys/fs/cgroup")
USUAL_CUDA_PART = 0.981
"""Share of NVML's total memory that CUDA can use, for a card that is not in the table."""


@dataclass(frozen=True)
class Card:
    """A card: its memory as nvidia-smi reports it, and the part that CUDA can use (the driver keeps the rest)."""

    name: str
    nvml_mib: float
    cuda_mib: float
    shares_host_memory: bool = False


class UnknownMemory(UserError):
    """A card of this machine does not report its memory."""


@functools.cache
def cards() -> dict[str, Card]:
    """Return the table that ships with the program (`cards.json`)."""
    content = json.loads(Path(__file__).with_name("cards.json").read_text(encoding="utf-8"))
    return {name: Card(name, float(nvml), float(cuda), *shared) for name, (nvml, cuda, *shared) in content.items()}


def find_card(name: str) -> Card | None:
    """Return the card of a name as people and drivers write it (`NVIDIA GeForce RTX 3060`, `rtx3060`, `2x4090`, `A100 40GB (a2-highgpu-1g)`).

    `card_names.py` says how names are matched. A memory in the name (`RTX 2080 Ti 22GB`) replaces the table's. Several cards
    (`RTX 5070 Ti + RTX 5090`) count as the smallest, because vLLM takes from each card what the smallest can give. Return None if a card is not
    in the table.
    """
    found = [_one_card(part) for part in re.split(r"\+|,|;|\band\b", name) if part.strip()]
    known = [card for card in found if card is not None]
    return min(known, key=lambda card: card.nvml_mib) if known and len(known) == len(found) else None


def _one_card(name: str) -> Card | None:
    if (slice_of := re.search(r"\b\dg[.-](\d+)gb", name.lower())) is not None:  # a MIG slice: A100 1g.5gb has 4864 MiB
        return Card(f"MIG {slice_of[0]}", float(slice_of[1]) * 1024 * 0.95, float(slice_of[1]) * 1024 * 0.93)
    entry, gb = matching(name, cards()), gb_in_name(name)
    if entry is None:
        return None
    card = cards()[entry]
    if gb is not None and not 0.88 < gb * 1024 / card.nvml_mib < 1.14:
        return Card(f"{card.name} {gb}GB", gb * 1024.0, gb * 1024.0 * USUAL_CUDA_PART)
    return card


def card_memory(name: str, used_mib: float = 0.0) -> DeviceMemory:
    """Return the memory of a card by name, beside what its co-tenants hold. Raise UserError, with the nearest names, for an unknown card."""
    card = find_card(name)
    if card is None:
        near = difflib.get_close_matches(name.upper(), [known.upper() for known in cards()], n=4, cutoff=0.5)
        names = {known.upper(): known for known in cards()}
        hint = f" (did you mean {', '.join(names[found] for found in near)}?)" if near else ""
        raise UserError(f"--gpu {name}: no such card in the table{hint}. Give one of the {len(cards())} that `tune-gpu plan --cards` lists, or "
                        "--total-mib MIB for any other.")
    return DeviceMemory(card.name, "cuda", card.cuda_mib, used_mib, shares_host_memory=card.shares_host_memory)


def under_wsl() -> bool:
    """Return True if this is Linux under Windows (WSL 2), by the name of its kernel."""
    return "microsoft" in platform.release().lower()


def nvml_memory(name: str, total_mib: float, used_mib: float, shares_host_memory: bool = False, wsl: bool = False) -> DeviceMemory:
    """Return the memory that CUDA can use, from NVML's figures.

    NVML's total includes what the driver keeps (known for a card of the table, else 1.9 %), and NVML counts that as used. Under WSL 2 Windows's
    driver keeps it, and CUDA sees the whole card (a log: 11.99 GiB of a card of 12282 MiB).
    """
    if wsl:
        return DeviceMemory(name, "cuda", total_mib, min(max(0.0, used_mib), total_mib), shares_host_memory=shares_host_memory)
    card = find_card(name)
    same_size = card is not None and abs(card.nvml_mib / total_mib - 1) < 0.03
    cuda = card.cuda_mib if card is not None and same_size else total_mib * USUAL_CUDA_PART
    used = min(max(0.0, used_mib - (total_mib - cuda)), cuda)
    return DeviceMemory(name, "cuda", cuda, used, shares_host_memory=shares_host_memory)


def this_card(device: str | None = None) -> DeviceMemory:
    """Return the memory of this machine's card, read through NVML, beside what its co-tenants hold now.

    Args:
        device: the card; by default the first in CUDA_VISIBLE_DEVICES.

    Raises:
        UnknownMemory: the card does not report its memory.
        UserError: there is no card.
    """
    from tune_gpu.telemetry.open import open_probe

    try:
        with contextlib.closing(open_probe("cuda", device)) as probe:
            info, used = probe.info, probe.read().used_mib
    except Exception as error:  # the driver's library has an error type of its own for each cause
        raise UserError(f"device=cuda: no NVIDIA card answers here ({error}). Give --gpu NAME or --total-mib, or device=cpu.") from error
    if info.total_mib is None or used is None:
        raise UnknownMemory(f"device=cuda: {info.name} does not report its memory, so what fits cannot be predicted. Give --gpu NAME or --total-mib.")
    return nvml_memory(info.name, info.total_mib, used, info.shares_host_memory, under_wsl())


def this_node(cores: set[int] | None = None) -> DeviceMemory:
    """Return the memory of the NUMA node of this process's first core, as vLLM's CPU worker reads it (`utils/cpu_resource_utils.py`).

    The total is the node's MemTotal; available are free pages, the page cache and reclaimable slabs; a cgroup's limit below the total
    replaces it. The total of a virtual machine may grow while its memory is touched, so read it when it is needed.
    """
    allowed = sorted(cores or os.sched_getaffinity(0))
    nodes = sorted(NODE_FOLDER.glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    node = next((path for path in nodes if (path / f"cpu{allowed[0]}").exists()), nodes[0] if nodes else None)
    if node is None or not (node / "meminfo").exists():
        import psutil

        memory = psutil.virtual_memory()
        total, available = float(memory.total), float(memory.available)
    else:
        pages = _meminfo((node / "meminfo").read_text(encoding="utf-8"))
        total = pages["MemTotal"]
        available = sum(pages[key] for key in ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable"))
    limit, usage = _cgroup()
    if limit is not None and limit < total:
        total, available = limit, max(0.0, min(available, limit - usage))
    mib = 2.0**20
    return DeviceMemory("cpu", "cpu", total / mib, max(0.0, (total - available) / mib), len(allowed))


def _meminfo(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        if match := re.match(r"Node \d+ (\S+):\s+(\d+)", line):
            found[match[1]] = float(match[2]) * 1024
    return found


def _cgroup() -> tuple[float | None, float]:
    for limit, usage in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):
            return float((CGROUP_FOLDER / limit).read_text(encoding="utf-8")), float((CGROUP_FOLDER / usage).read_text(encoding="utf-8"))
    return None, 0.0
