"""Read one NVIDIA card through NVML (package nvidia-ml-py), by index, UUID, prefix of a UUID or MIG name, as in CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.process.cgroup import oom_kills
from tune_gpu.telemetry.answering import Answering
from tune_gpu.telemetry.nvml_answers import CARD_LOST, Nvml, error_name, message_of, number, positive, text
from tune_gpu.telemetry.probe import DeviceInfo, Reading

ANSWER_TIMEOUT_S = 2.0
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons (nvml.h; newer drivers call them event reasons). Idle clocks, clocks set by a user
# and sync boost do not count as throttling.
_THERMAL = 0x20 | 0x40  # software and hardware thermal slowdown
_POWER = 0x04 | 0x80  # software power cap, hardware power brake
_HARDWARE = 0x08  # hardware slowdown: thermal or power, the driver does not distinguish


class NvmlProbe:
    """Read one card. A MIG instance has its own memory and processes; power, clocks and temperature are those of its card.

    A reading that the card does not report is None (`nvml_answers.py` lists what depends on it).

    Args:
        device: as in CUDA_VISIBLE_DEVICES (with CUDA_DEVICE_ORDER=PCI_BUS_ID, the order in which NVML counts).
        nvml: the module pynvml, or a fake of it in tests.
        timeout_s: longest wait for an answer of the driver.

    Raises:
        ServiceError: `wrong_device` if there is no such card; `measurement_invalid` if the driver does not answer or the card is lost.
    """

    def __init__(self, device: str, nvml: Any = None, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._nvml = Nvml(importlib.import_module("pynvml") if nvml is None else nvml)
        self._answering = Answering("NVML", timeout_s)
        try:
            self._ask(lambda: self._nvml.ask("nvmlInit"))
            self._handle, self._card, self._mig = self._ask(lambda: self._open(device.strip()))
            self.info = self._ask(self._describe)
        except BaseException:
            self._answering.close()
            raise

    def read(self) -> Reading:
        return self._ask(self._read)

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        listed, wanted = self._ask(lambda: self._nvml.processes(self._handle)), set(pids)
        return None if listed is None else {pid: mib for pid, mib in listed.items() if pid in wanted}

    def other_devices_of(self, pids: list[int]) -> str:
        there = self._ask(lambda: self._others(set(pids)))
        if there:
            return "they run on " + ", ".join(there)
        listed = self._ask(lambda: self._nvml.processes(self._handle))
        if listed is None:
            return "NVML does not report which processes are on it (as under WSL, or without permission)"
        return f"NVML lists {len(listed)} processes there, and none of this machine's other cards has those of the service" + (
            "; in a container NVML may report the host's process ids (docker run --pid=host makes them visible)" if listed else ""
        )

    def oom_events(self) -> int:
        return oom_kills()[0]

    def close(self) -> None:
        try:
            self._ask(lambda: self._nvml.ask("nvmlShutdown"))
        except ServiceError:
            pass  # the driver hangs; it is closed when this process ends
        finally:
            self._answering.close()

    def _ask(self, work: Callable[[], Any]) -> Any:
        try:
            return self._answering(work)
        except self._nvml.errors as error:
            raise _invalid(f"NVML: {message_of(error)}") from error

    def _open(self, device: str) -> tuple[Any, Any, bool]:
        nvml = self._nvml
        try:
            handle = nvml.ask("nvmlDeviceGetHandleByIndex", int(device)) if device.isdigit() else self._by_uuid(device)
        except nvml.errors as error:
            if error_name(error) in CARD_LOST:
                raise
            message = f"no card {device} here ({error})"
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.START, message)) from error
        if device.startswith("MIG-"):
            return handle, nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle), True
        if (nvml.ask("nvmlDeviceGetMigMode", handle) or (0, 0))[0]:  # [now, after the next reset]
            # CUDA uses one instance, but NVML would report the whole card: its memory, and the processes of all instances.
            message = f"card {device} is divided by MIG: name an instance of it (nvidia-smi -L lists them, MIG-…) in CUDA_VISIBLE_DEVICES"
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.START, message))
        return handle, handle, False

    def _by_uuid(self, uuid: str) -> Any:
        try:
            return self._nvml.ask("nvmlDeviceGetHandleByUUID", uuid)
        except self._nvml.errors as error:
            if error_name(error) in CARD_LOST:
                raise
            # CUDA accepts a unique prefix of a UUID; NVML does not.
            matching = [card for name, card in self._named_cards() if name.startswith(uuid)]
            if len(matching) != 1:
                raise
            return matching[0]

    def _named_cards(self) -> list[tuple[str, Any]]:
        """Return every card of this machine that answers and has a UUID."""
        nvml, found = self._nvml, []
        for number_of in range(int(nvml.ask("nvmlDeviceGetCount") or 0)):
            try:
                card = nvml.ask("nvmlDeviceGetHandleByIndex", number_of)
                name = text(nvml.ask("nvmlDeviceGetUUID", card, card=str(number_of)))
            except nvml.errors:  # another card is lost or hidden from this user, which does not concern this card
                continue
            if name is not None:
                found.append((name, card))
        return found

    def _describe(self) -> DeviceInfo:
        nvml = self._nvml
        memory = nvml.memory(self._handle)
        return DeviceInfo(
            "cuda",
            text(nvml.ask("nvmlDeviceGetName", self._handle)) or "",
            text(nvml.ask("nvmlDeviceGetUUID", self._handle)),
            memory.total_mib,
            driver=text(nvml.ask("nvmlSystemGetDriverVersion")),
            shares_host_memory=memory.shared,
        )

    def _read(self) -> Reading:
        handle = self._handle
        power, energy = self._of_card("nvmlDeviceGetPowerUsage"), self._of_card("nvmlDeviceGetTotalEnergyConsumption")
        rates = self._nvml.ask("nvmlDeviceGetUtilizationRates", handle)
        reasons = number(self._of_card("nvmlDeviceGetCurrentClocksThrottleReasons"))
        watts, joules = positive(power), number(energy)
        return Reading(
            utilization_pct=number(getattr(rates, "gpu", None)),
            used_mib=self._nvml.memory(handle).used_mib,
            clock_mhz=positive(self._of_card("nvmlDeviceGetClockInfo", self._nvml.module.NVML_CLOCK_SM)),
            power_w=None if watts is None or self._mig else watts / 1e3,
            energy_j=None if joules is None or self._mig else joules / 1e3,
            temperature_c=number(self._of_card("nvmlDeviceGetTemperature", self._nvml.module.NVML_TEMPERATURE_GPU)),
            throttled=None if reasons is None else throttling(int(reasons)),
            processes=self._nvml.processes(handle),
        )

    def _of_card(self, function: str, *arguments: Any) -> Any:
        """Query the whole card, even for a MIG instance. Return None if NVML does not report which card that is."""
        return None if self._card is None else self._nvml.ask(function, self._card, *arguments)

    def _others(self, pids: set[int]) -> list[str]:
        found = []
        for uuid, card in self._named_cards():
            if uuid != self.info.uuid and pids & (self._listed(uuid, card) or {}).keys():
                found.append(uuid)
        return found

    def _listed(self, uuid: str, card: Any) -> dict[int, float | None] | None:
        try:
            return self._nvml.processes(card, uuid)
        except self._nvml.errors:  # another card is lost, which does not concern this card
            return None


def throttling(bits: int) -> frozenset[str]:
    """Return NVML's reasons for low clocks as `thermal` and `power`, without other reasons (idle, set by a user)."""
    named = {"thermal": _THERMAL, "power": _POWER, "thermal or power": _HARDWARE}
    found = {name for name, mask in named.items() if bits & mask}
    return frozenset(found - {"thermal or power"} if found & {"thermal", "power"} else found)


def _invalid(message: str) -> ServiceError:
    return ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))
