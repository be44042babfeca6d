"""What an answer of NVML means, and the one place that says which answers a run needs.

An error is about the card or its driver as a whole, or about one question. After one of the first kind (`CARD_LOST`) nothing that NVML says can
be relied on: it is raised. An error of the second kind leaves that question without an answer: the reading is null, and whatever rests on it is
null or is not checked. Which of the two an error is stands in NVML's description of its return codes (`nvmlReturn_t`); a code that is not in
`CARD_LOST`, a future one included, is of the second kind.

`REQUIRED` are the few questions without whose answer no number could be said to belong to a card. Everything else is optional:

    memory (total)          without it the preflight is left out
    memory (used)           without it: memory peaks, neighbours' memory, and whether memory is stable or has come back
    processes               without them: the proof that a service is on its card, foreign processes, memory of each service
    a process's memory      without it: that service's memory, and the growth of its memory in a soak
    utilisation             without it: `gpu_utilization`, the fitness term `efficiency`, falling clocks
    clock                   without it: falling clocks
    reasons for low clocks  without them: throttling
    power, energy counter   without both: `energy_per_request_j`
    temperature, UUID, driver version, MIG mode: only told
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import psutil

from tune_gpu.telemetry.probe import MIB

REQUIRED = frozenset({"nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName"})
"""An error of these is raised, whatever its kind."""

CARD_LOST = frozenset({
    "Uninitialized", "InsufficientPower", "DriverNotLoaded", "IrqIssue", "LibraryNotFound", "GpuIsLost", "ResetRequired", "OperatingSystem",
    "LibRmVersionMismatch", "GpuNotFound",
})  # fmt: skip
"""Errors after which neither the card nor its driver can be asked, as `pynvml` names them (`NVMLError_GpuIsLost`)."""

NEVER = frozenset({"NotSupported", "NoPermission", "FunctionNotFound", "ArgumentVersionMismatch", "Deprecated", "LibraryMismatch"})
"""Errors that will be the same the next time: the question is not asked again. After any other error it is."""

_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})
"""NVML_VALUE_NOT_AVAILABLE, as an unsigned int and as an unsigned long long."""


@dataclass(frozen=True)
class CardMemory:
    """Memory of a card; null where NVML does not say."""

    total_mib: float | None = None
    used_mib: float | None = None
    shared: bool = False
    """It is the host's memory, which the card uses as its own."""


class Nvml:
    """Asks NVML, and sorts its errors.

    Args:
        module: `pynvml`, or what stands for it in tests.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.errors: tuple[type[Exception], ...] = (module.NVMLError, getattr(module, "NVMLLibraryMismatchError", module.NVMLError))
        self._never: dict[tuple[str, str], str] = {}

    def ask(self, function: str, *arguments: Any, card: str = "") -> Any:
        """The answer, null if there is none. Raises NVML's own error if the card is lost or the answer is required.

        Args:
            function: its name in `pynvml`.
            arguments: what it takes.
            card: names another card than the one of this object, which may answer what that one does not.
        """
        return self.answer(function, *arguments, card=card)[0]

    def answer(self, function: str, *arguments: Any, card: str = "") -> tuple[Any, str | None]:
        """As `ask`, with the name of the error that took the answer's place (`NotSupported`)."""
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
        """Memory of the card; the host's if the card has none of its own.

        Such a card (GB10, Jetson Thor) answers `NotSupported`, or a total of 0, and has no BAR1, the window through which the host reaches a
        card's own memory. Any other error says nothing of the memory.
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
        """Process id -> MiB on the card, null where that is not known (WSL, a vGPU, a MIG instance of another user). Null where no list is given."""
        listed = [self.ask(f"nvmlDeviceGet{kind}RunningProcesses", handle, card=card) for kind in ("Compute", "MPSCompute", "Graphics")]
        if listed[0] is None:
            return None
        found: dict[int, float | None] = {}
        for process in (process for processes in listed for process in processes or ()):
            held = [mib for mib in (found.get(process.pid), _mib(process.usedGpuMemory)) if mib is not None]
            found[process.pid] = max(held, default=None)
        return found


def error_name(error: Exception) -> str:
    """`GpuIsLost` of `NVMLError_GpuIsLost`."""
    return type(error).__name__.removeprefix("NVMLError_").removeprefix("NVML").removesuffix("Error")


def said(error: Exception) -> str:
    """The error in the driver's words, and which question it answered."""
    return " ".join([str(error), *(f"({function})" for function in dict.fromkeys(getattr(error, "__notes__", ())))])


def number(value: Any) -> float | None:
    """A number that NVML gave; null for those that stand for "not available", and for what is no number."""
    return None if not isinstance(value, int | float) or not 0 <= value < math.inf or value in _NOT_AVAILABLE else float(value)


def positive(value: Any) -> float | None:
    """As `number`, of what is never 0 while a card runs (its clock, its power): there 0 is no reading either."""
    return number(value) or None


def text(value: str | bytes | None) -> str | None:
    """A name that NVML gave: bytes in older versions of `pynvml`."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _mib(value: Any) -> float | None:
    held = number(value)
    return None if held is None else held / MIB
