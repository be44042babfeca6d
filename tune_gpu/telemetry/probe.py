"""The device as a probe: memory, utilisation and who is on it. One for NVIDIA cards (NVML), one for the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

MIB = 2**20


@dataclass(frozen=True)
class DeviceInfo:
    """Which device a number was measured on."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    uuid: str | None
    total_mib: float
    driver: str | None = None
    cores: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """The device at one moment."""

    utilization_pct: float
    used_mib: float


class Probe(Protocol):
    """Reads one device."""

    info: DeviceInfo

    def read(self) -> Reading:
        """Utilisation since the last reading (CPU) or as the driver averages it (NVML), and memory in use now."""

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float]:
        """Memory of those of these processes that are on this device; a process that is not on it is left out."""

    def oom_events(self) -> int:
        """A counter of out-of-memory kills since boot."""

    def close(self) -> None:
        """Let go of the driver."""


def kernel_oom_kills() -> int:
    """The kernel's counter of processes that it killed for want of memory (/proc/vmstat, `oom_kill`)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class CpuProbe:
    """The machine itself, for measurements on the CPU."""

    def __init__(self) -> None:
        self.info = DeviceInfo("cpu", _cpu_name(), None, psutil.virtual_memory().total / MIB, cores=psutil.cpu_count())
        psutil.cpu_percent()  # the first call has nothing to compare with

    def read(self) -> Reading:
        memory = psutil.virtual_memory()
        return Reading(psutil.cpu_percent(), (memory.total - memory.available) / MIB)

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float]:
        found: dict[int, float] = {}
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                found[pid] = psutil.Process(pid).memory_info().rss / MIB
        return found

    def oom_events(self) -> int:
        return kernel_oom_kills()

    def close(self) -> None:
        """Nothing to let go of."""


class NvmlProbe:
    """One NVIDIA card, by index or UUID (package nvidia-ml-py)."""

    def __init__(self, device: str) -> None:
        import pynvml

        self._nvml = pynvml
        pynvml.nvmlInit()
        if device.isdigit():
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(device))
        else:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(device)
        self.info = DeviceInfo(
            "cuda",
            _text(pynvml.nvmlDeviceGetName(self._handle)),
            _text(pynvml.nvmlDeviceGetUUID(self._handle)),
            float(pynvml.nvmlDeviceGetMemoryInfo(self._handle).total) / MIB,
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        )

    def read(self) -> Reading:
        used = float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) / MIB
        return Reading(float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu), used)

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float]:
        wanted = set(pids)
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return {process.pid: (process.usedGpuMemory or 0) / MIB for process in running if process.pid in wanted}

    def oom_events(self) -> int:
        return kernel_oom_kills()

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def nvidia_cards() -> int:
    """How many cards NVML sees; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def open_probe(kind: str, cuda_device: str = "0") -> Probe:
    """The probe for a device of this kind."""
    return CpuProbe() if kind == "cpu" else NvmlProbe(cuda_device)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "cpu"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
