"""The cards of a trial: what the device must prove before, between and after its services."""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.schema import RunSettings
from tune_gpu.services.running import RunningService
from tune_gpu.telemetry.neighbours import Neighbours, neighbours_on
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.probe import Probe, total
from tune_gpu.telemetry.sampler import wait_until_returned, wait_until_stable
from tune_gpu.telemetry.several import SeveralCards
from tune_gpu.telemetry.verdicts import NOT_PROVEN

_RETURNED_TOLERANCE_MIB = 256.0


class DeviceGuard:
    """Opens the cards of a trial, proves that its services are on them, and checks that their memory comes back.

    Args:
        device: `cuda` or `cpu`.
        run: how stable the memory must be, and for how long it is waited for.
        visible_devices: a call that returns CUDA_VISIBLE_DEVICES as the services get it.
        shared: other trials run on the card, so that its memory says nothing about ours.
    """

    def __init__(self, device: str, run: RunSettings, visible_devices: Callable[[], str], *, shared: bool = False) -> None:
        self._device, self._run, self._visible_devices, self._shared = device, run, visible_devices, shared
        self._cards: dict[str, Probe] = {}
        self._idle_mib: dict[str, float | None] = {}
        self._n_cards = 1

    @property
    def first_card(self) -> str:
        """Return the name of the card that all services are on."""
        return self._names()[0]

    @property
    def probe(self) -> Probe:
        """Return the device that the services get: all cards of an engine that spans several. Raise ServiceError if one cannot be opened."""
        return _as_one(self.cards())

    def use(self, n_cards: int) -> None:
        """Span this many cards from now on."""
        self._n_cards = n_cards

    def cards(self) -> list[Probe]:
        """Return a probe for each card. What is on a card when it is first opened is not ours. Raise ServiceError if one cannot be opened."""
        for card in self._names():
            if card not in self._cards:
                self._cards[card] = open_probe(self._device, card)
                self._idle_mib[card] = self._cards[card].read().used_mib
        return [self._cards[card] for card in self._names()]

    def neighbours(self, ours: Iterable[int]) -> Neighbours:
        """Return who else is on the device now. Raise ServiceError if the driver does not answer."""
        return neighbours_on(self.probe, ours)

    def wait_until_stable(self) -> str | None:
        """Wait until the memory in use is stable; return what stays unknown if the card does not report it. Raise ServiceError if it never is."""
        run = self._run
        stable = wait_until_stable(
            self.probe, samples=run.memory_stable_samples, tolerance_mib=run.memory_stable_mib, timeout_s=run.memory_timeout_s
        )
        if stable is None:
            return "the card does not report its memory: whether it was stable before the last service started, and has come back after, is not known"
        return None

    def prove(self, services: Mapping[str, RunningService[Any]], spanning: Container[str]) -> list[str]:
        """Check that each service has processes on its cards (law 2), and return what could not be proven.

        A card that does not list its processes proves nothing, neither for nor against.

        Args:
            services: what runs, by name.
            spanning: names of the services that must be on all cards; the others must be on the first.

        Raises:
            ServiceError: `wrong_device`, for a service that is not on a card it must be on.
        """
        unproven: list[str] = []
        if self._device != "cuda":  # nothing to prove, and listing processes costs milliseconds
            return unproven
        cards = self.cards()
        for name, service in services.items():
            pids = service.pids()
            for card in cards if name in spanning else cards[:1]:
                there = card.memory_by_pid_mib(pids)
                if there is None:
                    unproven.append(f"{NOT_PROVEN} {name} is on {card.info.name}: {card.other_devices_of(pids)}")
                elif not there:
                    message = f"none of its processes holds memory on {card.info.name} ({card.info.uuid}); {card.other_devices_of(pids)}"
                    raise ServiceError(Failure(FailureKind.WRONG_DEVICE, name, Phase.START, message))
        return unproven

    def check_returned(self) -> str | None:
        """Wait until the memory of an ended engine has come back; return what to log if it has not, or if that is not known."""
        if self._device != "cuda" or self._shared:  # on the CPU a process that has gone has given its memory back; a driver may take its time
            return None
        try:
            idle_mib = total(self._idle_mib[card] for card in self._names())
            missing = wait_until_returned(self.probe, idle_mib, tolerance_mib=_RETURNED_TOLERANCE_MIB, timeout_s=self._run.memory_timeout_s)
        except ServiceError as error:
            return f"whether the card's memory has come back is not known: {error}"
        if missing is None:
            return "whether the card's memory has come back is not known: the card does not report it"
        return f"{missing:.0f} MiB of the card have not come back after the engine ended" if missing else None

    def measured_on(self) -> dict[str, Any]:
        """Return the host and the cards that are open; empty before the first is."""
        opened = [self._cards[card] for card in self._names() if card in self._cards]  # one that cannot be opened is what failed
        return {"host": socket.gethostname(), **_as_one(opened).info.as_dict()} if opened else {}

    def close(self) -> None:
        """Close every card."""
        for card in self._cards.values():
            card.close()
        self._cards = {}

    def _names(self) -> list[str]:
        """Return the first names in CUDA_VISIBLE_DEVICES, unchanged; numbers if nobody has assigned any."""
        visible = self._visible_devices() if self._device == "cuda" else ""
        return visible.split(",")[: self._n_cards] if visible else [str(number) for number in range(self._n_cards)]


def _as_one(cards: Sequence[Probe]) -> Probe:
    return cards[0] if len(cards) == 1 else SeveralCards(cards)
