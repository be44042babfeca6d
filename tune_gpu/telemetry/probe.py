"""The interface to a device: its name and size, its readings, and its users. `nvml.py` reads NVIDIA cards, `cpu.py` the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

MIB = 2**20
@dataclass(frozen=True)
class DeviceInfo:
    """The device on which a number was measured."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    uuid: str | None
    """The driver's name for it (`GPU-…`, `MIG-…`)."""
    total_mib: float | None
    """Memory in MiB; on the CPU at most the cgroup's limit. None for a card that does not report it."""
    driver: str | None = None
    cores: int | None = None
    shares_host_memory: bool = False
    """True for a card without memory of its own. Then `total_mib` is the host's memory, and memory that a process holds on the host counts,
    too."""

    def as_dict(self) -> dict[str, Any]:
        """Return the device in the form of the artifacts."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """One reading of the device. None means that the device does not report the value, which differs from 0 or an empty set."""

    utilization_pct: float | None
    used_mib: float | None
    clock_mhz: float | None = None
    """Clock of the card's multiprocessors; None on the CPU, where each core has its own clock."""
    power_w: float | None = None
    energy_j: float | None = None
    """Energy by the card's own counter, since the driver was loaded."""
    temperature_c: float | None = None
    throttled: frozenset[str] | None = frozenset()
    """Reasons why the clocks are low: `thermal`, `power`."""
    processes: Mapping[int, float | None] | None = None
    """Process id -> MiB on this card; None on the CPU, where every process would be listed."""


class Probe(Protocol):
    """Reads one device. Every call raises ServiceError (`measurement_invalid`) if the driver does not answer."""

    info: DeviceInfo

    def read(self) -> Reading:
        """Return a reading. Its utilisation is the average since the last reading (CPU), or the driver's average (NVML)."""

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        """Return the memory in MiB (None if unknown) of the given processes that are on this device. Leave out the others.

        Return None if the device does not report which processes are on it.
        """

    def other_devices_of(self, pids: list[int]) -> str:
        """Return a message with the other devices of this machine on which these processes run."""

    def oom_events(self) -> int:
        """Return a counter of out-of-memory kills."""

    def close(self) -> None:
        """Close the driver."""


def total(parts: Iterable[float | None]) -> float | None:
    """Return the sum, or None if one part is None."""
    known = list(parts)
    return None if any(part is None for part in known) else sum(part for part in known if part is not None)
