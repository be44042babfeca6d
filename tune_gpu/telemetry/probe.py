"""The interface to a device: its name and size, its readings, and who uses it. `nvml.py` reads NVIDIA cards, `cpu.py` the CPU."""

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
    """At most the cgroup's limit on the CPU; None for a card that does not report it."""
    driver: str | None = None
    cores: int | None = None
    shares_host_memory: bool = False
    """True for a card without memory of its own: `total_mib` is the host's, and memory that a process holds on the host counts as well."""

    def as_dict(self) -> dict[str, Any]:
        """Return the device as the artifacts have it."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """One reading of the device. None is a value that the device does not report, which is never the same as 0 or an empty set."""

    utilization_pct: float | None
    used_mib: float | None
    clock_mhz: float | None = None
    """Clock of the card's multiprocessors; None on the CPU, whose cores have a clock each."""
    power_w: float | None = None
    energy_j: float | None = None
    """The card's own counter, since the driver was loaded."""
    temperature_c: float | None = None
    throttled: frozenset[str] | None = frozenset()
    """Reasons why the clocks are low: `thermal`, `power`."""
    processes: Mapping[int, float | None] | None = None
    """Process id -> MiB on this card; None on the CPU, where every process would be listed."""


class Probe(Protocol):
    """Reads one device. Every call raises ServiceError (`measurement_invalid`) if the driver does not answer."""

    info: DeviceInfo

    def read(self) -> Reading:
        """Return a reading. Utilisation is that since the last reading (CPU), or the driver's average (NVML)."""

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        """Return the memory in MiB of those of these processes that are on this device (None if unknown). Leave out the others.

        Return None if the device does not report which processes are on it.
        """

    def other_devices_of(self, pids: list[int]) -> str:
        """Return, for a message, on which other devices of this machine these processes are."""

    def oom_events(self) -> int:
        """Return a counter of out-of-memory kills."""

    def close(self) -> None:
        """Close the driver."""


def total(parts: Iterable[float | None]) -> float | None:
    """Return the sum, or None if one part is None."""
    known = list(parts)
    return None if any(part is None for part in known) else sum(part for part in known if part is not None)
