"""Read the cards of an engine that spans several as one device, so that a neighbour, heat or memory left on any of them is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tune_gpu.telemetry.cuda_visible import nvidia_cards, visible_cards
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.probe import DeviceInfo, Probe, Reading, total
from tune_gpu.telemetry.verdicts import BUSY_PCT


class SeveralCards:
    """Several cards as one probe: the sum of memory, power and energy, the mean utilisation, the highest temperature, the lowest clock of
    busy cards.

    Args:
        cards: at least one.
    """

    def __init__(self, cards: Sequence[Probe]) -> None:
        self._cards = tuple(cards)
        infos = [card.info for card in self._cards]
        self.info = DeviceInfo(
            infos[0].kind,
            " + ".join(dict.fromkeys(info.name for info in infos)),
            ",".join(info.uuid or "" for info in infos),  # in the form of CUDA_VISIBLE_DEVICES
            total(info.total_mib for info in infos),
            infos[0].driver,
            shares_host_memory=any(info.shares_host_memory for info in infos),
        )

    def read(self) -> Reading:
        readings = [card.read() for card in self._cards]
        return Reading(
            utilization_pct=_all(readings, lambda r: r.utilization_pct, lambda values: sum(values) / len(values)),
            used_mib=total(reading.used_mib for reading in readings),
            clock_mhz=_all([r for r in readings if (r.utilization_pct or 0.0) >= BUSY_PCT] or readings, lambda r: r.clock_mhz, min),
            power_w=_all(readings, lambda r: r.power_w, sum),
            energy_j=_all(readings, lambda r: r.energy_j, sum),
            temperature_c=_all(readings, lambda r: r.temperature_c, max),
            throttled=_reasons(readings),
            processes=_together([reading.processes for reading in readings]),
        )

    def memory_by_pid_mib(self, pids: list[int]) -> Mapping[int, float | None] | None:
        return _together([card.memory_by_pid_mib(pids) for card in self._cards])

    def other_devices_of(self, pids: list[int]) -> str:
        return self._cards[0].other_devices_of(pids)

    def oom_events(self) -> int:
        return self._cards[0].oom_events()

    def close(self) -> None:
        for card in self._cards:
            card.close()


def open_device(kind: str, n_cards: int = 1) -> Probe:
    """Return the device of an engine on this many cards: the first cards that CUDA allows (fewer if there are not enough), or the CPU."""
    names = visible_cards(nvidia_cards())[:n_cards] if kind == "cuda" else []
    return open_probe(kind) if len(names) < 2 else SeveralCards([open_probe(kind, name) for name in names])


def _all(readings: Sequence[Reading], value_of: Callable[[Reading], float | None], combine: Callable[[list[float]], float]) -> float | None:
    """Return the combined value of all cards, or None if one does not report it, because a value of fewer cards would not be comparable."""
    values = [value for value in map(value_of, readings) if value is not None]
    return combine(values) if len(values) == len(readings) else None


def _reasons(readings: Sequence[Reading]) -> frozenset[str] | None:
    """Return the reasons why any card is throttled, or None if no reason is known and one card does not report them."""
    found = frozenset[str]().union(*(reading.throttled or () for reading in readings))
    return None if not found and any(reading.throttled is None for reading in readings) else found


def _together(parts: Sequence[Mapping[int, float | None] | None]) -> dict[int, float | None] | None:
    """Return the processes of all cards, or None if one card has no list. A process's sum is None if one card does not report its
    memory."""
    if any(part is None for part in parts):
        return None
    held: dict[int, list[float | None]] = {}
    for part in parts:
        for pid, mib in (part or {}).items():
            held.setdefault(pid, []).append(mib)
    return {pid: total(mib) for pid, mib in held.items()}
