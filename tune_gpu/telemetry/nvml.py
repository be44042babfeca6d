"""One NVIDIA card through NVML (package nvidia-ml-py), by index, UUID, a UUID's beginning or a MIG string, as CUDA_VISIBLE_DEVICES names it."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from tune_gpu.measurement import Failure, FailureKind, Phase, ServiceError
from tune_gpu.telemetry.answering import Answering
from tune_gpu.telemetry.cgroup import oom_kills
from tune_gpu.telemetry.probe import MIB, DeviceInfo, Reading, unified_memory

ANSWER_TIMEOUT_S = 2.0
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons (nvml.h; newer drivers call them event reasons). Idle clocks, clocks that a user has set and sync boost are no throttling.
_THERMAL = 0x20 | 0x40  # software and hardware thermal slowdown
_POWER = 0x04 | 0x80  # software power cap, hardware power brake
_HARDWARE = 0x08  # hardware slowdown: thermal or power, the driver does not say which


class NvmlProbe:
    """Reads one card. A MIG instance has memory and processes of its own; power, clocks and temperature are those of its card.

    Args:
        device: as in CUDA_VISIBLE_DEVICES (with CUDA_DEVICE_ORDER=PCI_BUS_ID, the order in which NVML counts).
        nvml: the module pynvml, or what stands for it in tests.
        timeout_s: how long the driver may take to answer.

    Raises:
        ServiceError: `wrong_device` for a card that is not there; `measurement_invalid` if the driver does not answer.
    """

    def __init__(self, device: str, nvml: Any = None, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        if nvml is None:
            nvml = importlib.import_module("pynvml")
        self._nvml = nvml
        self._answering = Answering("NVML", timeout_s)
        self._untold: set[str] = set()
        try:
            self._ask(nvml.nvmlInit)
            self._handle, self._card, self._mig = self._ask(lambda: self._open(device.strip()))
            self.info = self._ask(self._describe)
        except BaseException:
            self._answering.close()
            raise

    def read(self) -> Reading:
        return self._ask(self._read)

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float]:
        wanted = set(pids)
        return {pid: mib for pid, mib in (self._ask(lambda: self._processes(self._handle)) or {}).items() if pid in wanted}

    def whereabouts(self, pids: list[int]) -> str:
        there = self._ask(lambda: self._others(set(pids)))
        if there:
            return "they are on " + ", ".join(there)
        listed = self._ask(lambda: self._processes(self._handle))
        if listed is None:
            return "NVML does not tell which processes are on it (not under WSL, nor where it may not), so that nothing can be proven here"
        return f"NVML lists {len(listed)} processes there and none of this machine's other cards has them" + (
            "; in a container NVML may count by the host's process ids (docker run --pid=host shows them)" if listed else ""
        )

    def oom_events(self) -> int:
        return oom_kills()[0]

    def close(self) -> None:
        try:
            self._ask(self._nvml.nvmlShutdown)
        except ServiceError:
            pass  # a driver that hangs is let go of when the process ends
        finally:
            self._answering.close()

    def _ask(self, work: Callable[[], Any]) -> Any:
        try:
            return self._answering(work)
        except self._nvml.NVMLError as error:
            raise _invalid(f"NVML: {error}") from error

    def _open(self, device: str) -> tuple[Any, Any, bool]:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(int(device)) if device.isdigit() else self._by_uuid(device)
        except nvml.NVMLError as error:
            message = f"no card {device} here ({error})"
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.START, message)) from error
        if device.startswith("MIG-"):
            return handle, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), True
        if (self._told("mig", lambda: nvml.nvmlDeviceGetMigMode(handle)) or (0, 0))[0]:  # [now, after the next reset]
            # CUDA takes one of its instances, NVML would tell of the whole card: its whole memory, and the processes of all instances.
            message = f"card {device} is divided by MIG: name an instance of it (nvidia-smi -L lists them, MIG-…) in CUDA_VISIBLE_DEVICES"
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.START, message))
        return handle, handle, False

    def _by_uuid(self, uuid: str) -> Any:
        nvml = self._nvml
        try:
            return nvml.nvmlDeviceGetHandleByUUID(uuid)
        except nvml.NVMLError:
            # CUDA takes the beginning of a UUID where it is unique; NVML does not.
            cards = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
            matching = [card for card in cards if _text(nvml.nvmlDeviceGetUUID(card)).startswith(uuid)]
            if len(matching) != 1:
                raise
            return matching[0]

    def _describe(self) -> DeviceInfo:
        nvml = self._nvml
        name = _text(nvml.nvmlDeviceGetName(self._handle))
        return DeviceInfo(
            "cuda",
            name,
            _text(nvml.nvmlDeviceGetUUID(self._handle)),
            card_memory_mib(nvml, self._handle, name)[0],
            driver=_text(nvml.nvmlSystemGetDriverVersion()),
        )

    def _read(self) -> Reading:
        nvml, card = self._nvml, self._card
        power = self._told("power", lambda: nvml.nvmlDeviceGetPowerUsage(card))
        energy = None if self._mig else self._told("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(card))
        return Reading(
            utilization_pct=self._told("utilization", lambda: float(nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)),
            used_mib=card_memory_mib(nvml, self._handle, self.info.name)[1],
            clock_mhz=self._told("clock", lambda: float(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM))),
            power_w=None if power is None or self._mig else power / 1e3,
            energy_j=None if energy is None else energy / 1e3,
            temperature_c=self._told("temperature", lambda: float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))),
            throttled=throttling(self._told("throttling", lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card))) or 0),
            processes=self._processes(self._handle),
        )

    def _told(self, what: str, work: Callable[[], Any]) -> Any:
        """Null for what this card or driver does not tell, or not this user (a MIG instance's, of the whole card); it is asked only once."""
        if what in self._untold:
            return None
        try:
            return work()
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound, self._nvml.NVMLError_NoPermission):
            self._untold.add(what)
            return None

    def _processes(self, handle: Any, card: str = "") -> dict[int, float] | None:
        """Null where it does not tell; `card` names another than this one: what that does not tell, this one may."""
        nvml = self._nvml
        told = [
            self._told(card + what, lambda w=what: getattr(nvml, f"nvmlDeviceGet{w}RunningProcesses")(handle))  # type: ignore[misc]
            for what in ("Compute", "MPSCompute", "Graphics")
        ]
        if told[0] is None:
            return None
        found: dict[int, float] = {}
        for process in itertools.chain.from_iterable(listed or [] for listed in told):
            found[process.pid] = max(found.get(process.pid, 0.0), (process.usedGpuMemory or 0) / MIB)
        return found

    def _others(self, pids: set[int]) -> list[str]:
        nvml = self._nvml
        cards = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        named = {_text(nvml.nvmlDeviceGetUUID(card)): card for card in cards}
        return [uuid for uuid, card in named.items() if uuid != self.info.uuid and pids & (self._processes(card, uuid) or {}).keys()]


def card_memory_mib(nvml: Any, handle: Any, name: str) -> tuple[float, float]:
    """Total and used. Of a card that shares the host's memory (GB10) NVML says neither: then the host's, as vLLM reads them there."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        if not unified_memory(name):
            raise
        host = psutil.virtual_memory()
        return host.total / MIB, (host.total - host.available) / MIB
    return float(memory.total) / MIB, float(memory.used) / MIB


def throttling(bits: int) -> frozenset[str]:
    """NVML's reasons for low clocks as `thermal` and `power`; what is neither (idle, set by a user) is left out."""
    named = {"thermal": _THERMAL, "power": _POWER, "thermal or power": _HARDWARE}
    found = {name for name, mask in named.items() if bits & mask}
    return frozenset(found - {"thermal or power"} if found & {"thermal", "power"} else found)


def _invalid(message: str) -> ServiceError:
    return ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
