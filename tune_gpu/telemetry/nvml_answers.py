"""Interpret the answers of NVML, and define which of them a run needs.

An error concerns either the card and its driver as a whole, or a single query. After one of the first kind (`CARD_LOST`) no answer of NVML
can be trusted, so it is raised. After one of the second kind the reading is None, and whatever depends on it is None or is not checked. The
kind follows from NVML's description of its return codes (`nvmlReturn_t`); any code that is not in `CARD_LOST`, including future ones, is of
the second kind.

`REQUIRED` are the few queries without whose answer no number could be attributed to a card. Everything else is optional:

    memory (total)          without it: no check of memory before a start
    memory (used)           without it: memory peaks, neighbours' memory, and whether memory is stable or was returned
    processes               without them: the proof that a service is on its card, foreign processes, memory of each service
    a process's memory      without it: that service's memory, and the growth of its memory in a soak
    utilisation             without it: `gpu_utilization`, the fitness term `efficiency`, falling clocks
    clock                   without it: falling clocks
    reasons for low clocks  without them: throttling
    power, energy counter   without both: `energy_per_request_j`
    temperature, UUID, driver version, MIG mode: reported only
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import psutil

from tune_gpu.telemetry.probe import MIB

REQUIRED = frozenset({"nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName"})
"""Queries whose errors of either kind are raised."""

CARD_LOST = frozenset({
    "Uninitialized", "InsufficientPower", "DriverNotLoaded", "IrqIssue", "LibraryNotFound", "GpuIsLost", "ResetRequired", "OperatingSystem",
    "LibRmVersionMismatch", "GpuNotFound",
})  # fmt: skip
"""Errors after which neither the card nor its driver can answer, as `pynvml` names them (`NVMLError_GpuIsLost`)."""

NEVER = frozenset({"NotSupported", "NoPermission", "FunctionNotFound", "ArgumentVersionMismatch", "Deprecated", "LibraryMismatch"})
"""Errors that will recur, so that the query is not repeated. After other errors it is."""

_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})
"""NVML_VALUE_NOT_AVAILABLE, as an unsigned int and as an unsigned long long."""


@dataclass(frozen=True)
class CardMemory:
    """Memory of a card; None if NVML does not report it."""

    total_mib: float | None = None
    used_mib: float | None = None
    shared: bool = False
    """True if the card uses the host's memory as its own."""


class Nvml:
    """Query NVML, and sort its errors.

    Args:
        module: `pynvml`, or a fake of it in tests.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.errors: tuple[type[Exception], ...] = (module.NVMLError, getattr(module, "NVMLLibraryMismatchError", module.NVMLError))
        self._never: dict[tuple[str, str], str] = {}

    def ask(self, function: str, *arguments: Any, card: str = "") -> Any:
        """Return the answer, or None if there is none. Raise NVML's own error if the card is lost or the answer is required.

        Args:
            function: its name in `pynvml`.
            arguments: the function's arguments.
            card: name of another card than this object's, which may support other queries.
        """
        return self.answer(function, *arguments, card=card)[0]

    def answer(self, function: str, *arguments: Any, card: str = "") -> tuple[Any, str | None]:
        """Return the answer as `ask` does, and the name of the error if there is no answer (`NotSupported`)."""
        if (known := self._never.get((card, function))) is not None:
            return None, known
        call = getattr(self.module, function, None)
        if call is None:  # an older pynvml
            return None, "FunctionNotFound"
        try:
            return call(*arguments), None
        except self.errors as error:
            name = error_name(error)
            if function in REQUIRED or name in CARD_LOST:
                error.add_note(function)
                raise
            if name in NEVER:
                self._never[card, function] = name
            return None, name

    def memory(self, handle: Any, card: str = "") -> CardMemory:
        """Return the memory of the card, or of the host if the card has none of its own.

        Such a card (GB10, Jetson Thor) answers `NotSupported` or a total of 0, and has no BAR1, the window through which the host reaches a
        card's own memory. After any other error the memory is unknown.
        """
        found, error = self.answer("nvmlDeviceGetMemoryInfo", handle, card=card)
        total, used = number(getattr(found, "total", None)), number(getattr(found, "used", None))
        if total:
            return CardMemory(total / MIB, None if used is None else used / MIB)
        if error not in (None, "NotSupported") or (error is None and total is None) or self._has_bar1(handle, card):
            return CardMemory()
        host = psutil.virtual_memory()
        return CardMemory(host.total / MIB, (host.total - host.available) / MIB, shared=True)

    def _has_bar1(self, handle: Any, card: str) -> bool:
        return bool(number(getattr(self.ask("nvmlDeviceGetBAR1MemoryInfo", handle, card=card), "bar1Total", None)))

    def processes(self, handle: Any, card: str = "") -> dict[int, float | None] | None:
        """Return process id -> MiB on the card. The memory of a process is None if unknown (WSL, a vGPU, a MIG instance of another
        user). Return None if there is no list."""
        listed = [self.ask(f"nvmlDeviceGet{kind}RunningProcesses", handle, card=card) for kind in ("Compute", "MPSCompute", "Graphics")]
        if listed[0] is None:
            return None
        found: dict[int, float | None] = {}
        for process in (process for processes in listed for process in processes or ()):
            held = [mib for mib in (found.get(process.pid), _mib(process.usedGpuMemory)) if mib is not None]
            found[process.pid] = max(held, default=None)
        return found


def error_name(error: Exception) -> str:
    """Return `GpuIsLost` for `NVMLError_GpuIsLost`."""
    return type(error).__name__.removeprefix("NVMLError_").removeprefix("NVML").removesuffix("Error")


def message_of(error: Exception) -> str:
    """Return the driver's error message, and the query that failed."""
    return " ".join([str(error), *(f"({function})" for function in dict.fromkeys(getattr(error, "__notes__", ())))])


def number(value: Any) -> float | None:
    """Return a number from NVML, or None if it stands for "not available" or is not a number."""
    return None if not isinstance(value, int | float) or not 0 <= value < math.inf or value in _NOT_AVAILABLE else float(value)


def positive(value: Any) -> float | None:
    """Return a number as `number` does, and None for 0. A running card's clock and power are never 0, so 0 is not a reading."""
    return number(value) or None


def text(value: str | bytes | None) -> str | None:
    """Return a name from NVML as text; older versions of `pynvml` return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _mib(value: Any) -> float | None:
    held = number(value)
    return None if held is None else held / MIB
