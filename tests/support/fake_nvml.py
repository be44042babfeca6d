"""NVML at its seam: answers as the library gives them (units, error types, structures), written down by hand, one frame a reading.

Nothing in it was measured: it stands for a driver that this machine lacks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 2**20
UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
OTHER = "GPU-1a2b3c4d-0000-4106-c12f-20bd9faed9f6"
MIG = "MIG-3f8fe1a0-1f7c-5c7b-9f0e-2b7d4d2c9a11"


ERRORS: dict[str, type[Exception]] = {
    name.removeprefix("NVMLError_"): error for name, error in vars(pynvml).items() if name.startswith("NVMLError_")
} | {"LibraryMismatch": pynvml.NVMLLibraryMismatchError}
"""Every error that the library can raise: `GpuIsLost` -> its type."""


def _raising(error: type[Exception]) -> Callable[..., Any]:
    def call(*_given: Any) -> Any:
        raise error("made up")

    return call


@dataclass(frozen=True)
class Frame:
    """One reading; `processes`: pid -> MiB, null where the driver does not tell how much."""

    processes: Mapping[int, float | None] = field(default_factory=dict)
    utilization: int = 90
    used_mib: float = 8000.0
    clock: int = 1900
    power_w: float = 150.0
    temperature: int = 65
    reasons: int = 0
    elsewhere: Mapping[int, float | None] = field(default_factory=dict)
    """On the other card of the machine."""
    used_elsewhere_mib: float | None = None
    """Null: as much as on this one."""
    reasons_elsewhere: int = 0
    utilization_elsewhere: int | None = None
    clock_elsewhere: int | None = None


class FakeNvml:
    """Plays the frames, the last one for ever; `gate`, while it is shut, is a driver that does not answer."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    # The library's own error types, so that what is caught here is what is caught there.
    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = ERRORS["NotSupported"]
    NVMLError_FunctionNotFound = ERRORS["FunctionNotFound"]
    NVMLError_NoPermission = ERRORS["NoPermission"]
    NVMLError_NotFound = ERRORS["NotFound"]
    NVMLError_GpuIsLost = ERRORS["GpuIsLost"]
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError

    def __init__(self, frames: list[Frame], *, unsupported: set[str] = frozenset(), on_frame: Callable[[int], None] = lambda _n: None) -> None:  # type: ignore[assignment]
        self._frames, self._unsupported, self._on_frame = frames, unsupported, on_frame
        self.turn = -1
        self.energy_mj = 1_000_000
        self.name = b"NVIDIA GeForce RTX 3060"
        self.gate = threading.Event()
        self.gate.set()
        self.stuck = threading.Event()
        """Set as soon as a call waits for the gate."""
        self.silent_on: dict[str, type[Exception]] = {}
        """Card -> why it does not list its processes."""
        self.divided: set[str] = set()
        """Cards in MIG mode."""
        self.lost = False
        self.bar1_mib: float | None = None
        """Null for a card that has no BAR1, as those that share the host's memory."""
        self.raises: dict[str, type[Exception]] = {}
        """Function -> the error that it answers with, whatever it is asked."""
        self.returns: dict[str, Any] = {}
        """Function -> what it answers instead."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml"):
            if (error := self.raises.get(name)) is not None:
                return _raising(error)
            if name in self.returns:
                answer = self.returns[name]
                return lambda *_given: answer
        return super().__getattribute__(name)

    @property
    def _now(self) -> Frame:
        return self._frames[max(0, min(self.turn, len(self._frames) - 1))]

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.14"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12040

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:
        return 0

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index > 1:
            raise self.NVMLError_NotFound("Invalid Argument")
        return (UUID, OTHER)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in (UUID, OTHER, MIG):
            raise self.NVMLError_NotFound("Not Found")
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:
        assert handle == MIG
        return UUID

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if handle not in self.divided:
            raise self.NVMLError_NotSupported("Not Supported")
        return [1, 1]

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return self.name

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self._play()
        self._support("memory")
        return SimpleNamespace(total=12288 * MIB, used=int((self._other(handle, "used_elsewhere_mib") or self._now.used_mib) * MIB))

    def nvmlDeviceGetBAR1MemoryInfo(self, handle: str) -> Any:
        if self.bar1_mib is None:
            raise self.NVMLError_NotSupported()
        return SimpleNamespace(bar1Total=int(self.bar1_mib * MIB), bar1Used=0)

    def _other(self, handle: str, name: str) -> Any:
        return getattr(self._now, name) if handle == OTHER else None

    def _play(self) -> None:
        """The memory is what every reading asks for: it moves the tape."""
        if not self.gate.is_set():
            self.stuck.set()
        self.gate.wait()
        if self.lost:
            raise self.NVMLError_GpuIsLost()
        self.turn += 1
        self._on_frame(self.turn)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._support("utilization")
        if handle == MIG:
            raise self.NVMLError_NotSupported("Not Supported")
        other = self._other(handle, "utilization_elsewhere")
        return SimpleNamespace(gpu=self._now.utilization if other is None else other, memory=10)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return int(self._other(handle, "clock_elsewhere") or self._now.clock)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._support("power")
        return int(self._now.power_w * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._support("energy")
        self.energy_mj += 15_000
        return self.energy_mj

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return self._now.temperature

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self._now.reasons_elsewhere if handle == OTHER else self._now.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        frame = self._now
        if handle in self.silent_on:
            raise self.silent_on[handle]("Insufficient Permissions")
        listed = frame.elsewhere if handle == OTHER else frame.processes
        return [SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else int(mib * MIB)) for pid, mib in listed.items()]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: str) -> list[Any]:
        raise self.NVMLError_FunctionNotFound("Function Not Found")

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        return []

    def _support(self, what: str) -> None:
        if what in self._unsupported:
            raise self.NVMLError_NotSupported("Not Supported")
