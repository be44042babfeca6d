"""The device as a probe: what it is, what it does at this moment, and who is on it. `nvml.py` is the one for NVIDIA cards, `cpu.py` for the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

MIB = 2**20
@dataclass(frozen=True)
class DeviceInfo:
    """Which device a number was measured on."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    uuid: str | None
    """As the driver gives it (`GPU-…`, `MIG-…`)."""
    total_mib: float | None
    """On the CPU no more than the cgroup's limit; null for a card that does not report it."""
    driver: str | None = None
    cores: int | None = None
    shares_host_memory: bool = False
    """The card has no memory of its own: `total_mib` is the host's, and what a process holds on the host counts as well."""

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """The device at one moment; null is what it does not report, which is never the same as 0 or none."""

    utilization_pct: float | None
    used_mib: float | None
    clock_mhz: float | None = None
    """Of the card's multiprocessors; null on the CPU, whose cores have a clock each."""
    power_w: float | None = None
    energy_j: float | None = None
    """The card's own counter since the driver was loaded."""
    temperature_c: float | None = None
    throttled: frozenset[str] | None = frozenset()
    """Why the clocks are held down now: `thermal`, `power`."""
    processes: Mapping[int, float | None] | None = None
    """Process id -> MiB on this card; null on the CPU, where every process is."""


class Probe(Protocol):
    """Reads one device. Every call raises ServiceError (`measurement_invalid`) if the driver does not answer."""

    info: DeviceInfo

    def read(self) -> Reading:
        """Utilisation since the last reading (CPU) or as the driver averages it (NVML), and the rest as it is now."""

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        """Memory of those of these processes that are on this device, null where it is not known. A process that is not on it is left out.
        Null where the device does not report which processes are on it."""

    def whereabouts(self, pids: list[int]) -> str:
        """For a message: on which other devices of this machine these processes are."""

    def oom_events(self) -> int:
        """A counter of out-of-memory kills."""

    def close(self) -> None:
        """Let go of the driver."""


def total(parts: Iterable[float | None]) -> float | None:
    """The sum; null where one part is not known."""
    known = list(parts)
    return None if any(part is None for part in known) else sum(part for part in known if part is not None)
