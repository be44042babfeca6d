"""Check the NVIDIA driver and its cards."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_gpu.services.findings import DoctorFinding, Machine, fail, note, ok
from tune_gpu.telemetry.nvml_answers import Nvml, text


@dataclass(frozen=True)
class Card:
    """One card as NVML reports it."""

    name: str
    total_mib: float | None
    """None if it is not reported, for example to a user of one instance of a card that MIG divides."""
    used_mib: float | None
    exclusive: bool
    """Only one process may use the card (compute mode)."""
    mig: bool


@dataclass(frozen=True)
class Driver:
    """The driver and its cards; `error` if it does not answer."""

    version: str = ""
    cuda: tuple[int, int] | None = None
    """The newest CUDA version that the driver supports; None if it does not report one."""
    cards: tuple[Card, ...] = ()
    error: str = ""
    pids: frozenset[int] = frozenset()
    """Ids of the processes on its cards, as the driver counts them."""


def read_driver(module: Any = None) -> Driver:
    """Query NVML (or a fake of it in tests). A value that a card does not report is None; a lost card is an error of the driver."""
    nvml = Nvml(importlib.import_module("pynvml") if module is None else module)
    try:
        nvml.ask("nvmlInit")
    except nvml.errors as error:
        return Driver(error=str(error))
    try:
        version = nvml.ask("nvmlSystemGetCudaDriverVersion")
        cuda = None if version is None else (int(version) // 1000, int(version) % 1000 // 10)
        count = nvml.ask("nvmlDeviceGetCount")
        if count is None:
            return Driver(error="NVML does not report how many cards there are")
        handles = {str(index): nvml.ask("nvmlDeviceGetHandleByIndex", index) for index in range(int(count))}
        cards = tuple(_card(nvml, index, handle) for index, handle in handles.items())
        pids = frozenset(pid for index, handle in handles.items() for pid in nvml.processes(handle, index) or ())
        return Driver(text(nvml.ask("nvmlSystemGetDriverVersion")) or "unknown version", cuda, cards, pids=pids)
    except nvml.errors as error:
        return Driver(error=str(error))
    finally:
        with contextlib.suppress(*nvml.errors):
            nvml.ask("nvmlShutdown")


def _card(nvml: Nvml, index: str, handle: Any) -> Card:
    memory = nvml.memory(handle, index)
    mode = nvml.ask("nvmlDeviceGetComputeMode", handle, card=index)
    mig = nvml.ask("nvmlDeviceGetMigMode", handle, card=index) or (0, 0)
    return Card(text(nvml.ask("nvmlDeviceGetName", handle)) or "", memory.total_mib, memory.used_mib, mode in (1, 3), bool(mig[0]))


def check_driver(driver: Driver, device_files: Sequence[Path]) -> Iterator[DoctorFinding]:
    """Check the driver, its cards, their memory and modes, and the right to open their device files.

    Args:
        driver: as `read_driver` returns it.
        device_files: the existing `/dev/nvidia0` and so on.
    """
    if driver.error or not driver.cards:
        reason = driver.error or "NVML lists no card"
        if device_files:
            yield fail("driver", f"{device_files[0]} exists, but NVML reports: {reason}",
                       "reload the driver (a reboot after a driver update), or fix the container's --gpus option; nvidia-smi must list the card")  # fmt: skip
        else:
            yield note("driver", f"no NVIDIA GPU ({reason})", "runs measure on the CPU; for a GPU install its driver, or start the container with --gpus all")
        return
    yield ok("driver", f"{driver.version}, {Machine('cuda', driver.cuda).driver_text}")
    for path in device_files:
        if not os.access(path, os.R_OK | os.W_OK):
            yield fail("permissions", f"{path} cannot be opened", f"add this user to the group that owns it: ls -l {path}")
    for index, card in enumerate(driver.cards):
        yield from _check_card(index, card)


def _check_card(index: int, card: Card) -> Iterator[DoctorFinding]:
    name = f"card {index}"
    memory = "its memory is not reported" if card.total_mib is None or card.used_mib is None else f"{card.total_mib:.0f} MiB, {card.used_mib:.0f} in use"
    text = f"{card.name}, {memory}" + (", MIG" if card.mig else "")
    if card.exclusive:
        yield fail(name, f"{text}; compute mode is exclusive: two services cannot share it", f"nvidia-smi -i {index} -c DEFAULT (as root)")
    elif card.mig:
        yield note(name, text, "a run uses one MIG instance: name it (nvidia-smi -L lists them) in CUDA_VISIBLE_DEVICES")
    elif (card.used_mib or 0.0) > 0.5 * (card.total_mib or math.inf):
        yield note(name, text, "other processes use more than half of it: see nvidia-smi, and tune-gpu plan for what still fits")
    else:
        yield ok(name, text)


_HOST_NAMESPACE = "pid:[4026531836]"
"""The link /proc/self/ns/pid of the machine itself (the kernel's PROC_PID_INIT_INO)."""


def check_process_ids(driver: Driver, namespace: str, here: Callable[[int], bool]) -> Iterator[DoctorFinding]:
    """Check that the driver uses this program's process ids, which prove that a service is on its card.

    Older drivers ignore containers and report the host's ids. Newer ones list the processes of the container's namespace, with its own ids.

    Args:
        driver: as `read_driver` returns it.
        namespace: target of the link /proc/self/ns/pid.
        here: returns True if a process with this id exists here.
    """
    if not driver.cards or namespace == _HOST_NAMESPACE:
        return
    advice = "docker run --pid=host (Kubernetes: hostPID: true), or a newer driver on the host"
    if strangers := sorted(pid for pid in driver.pids if not here(pid)):
        yield fail("process ids", f"this container has its own process ids, but the driver reports the host's ({strangers[0]} does not exist here): every service "
        "would count as on the wrong device", advice)  # fmt: skip
    else:
        yield note("process ids", "this container has its own process ids; with a driver that reports the host's, every candidate would fail as wrong_device",
                   f"if that happens: {advice}")  # fmt: skip


def device_files() -> list[Path]:
    """Return the existing `/dev/nvidia0` and so on."""
    return sorted(path for path in Path("/dev").glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name))
