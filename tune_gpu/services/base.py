"""What a kind of service is to this program. Each kind is a folder under `services/`, and nothing outside that folder names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tune_gpu.common.metric import Protocol as Api
from tune_gpu.services.deployable import Deployable
from tune_gpu.services.findings import DoctorFinding, Machine
from tune_gpu.services.memory_values import Beside, DeviceMemory, Footprint, Prediction
from tune_gpu.services.predictions import BesideMany, Columns, Predictions
from tune_gpu.services.running import RunningService


@dataclass(frozen=True)
class Gpus:
    """The part of the cards that a service takes."""

    cards: int = 1
    """How many cards it spans; 1 for a service on the trial's first card, 0 for one that uses none."""
    share: float | None = None
    """The part of each card's memory that it reserves; None for a service whose memory grows."""
    sizes: tuple[str, ...] = ()
    """The settings that make it more than one card (`tensor_parallel_size=2`), for a message."""


@dataclass(frozen=True)
class LaunchSite:
    """Where a service is started."""

    device: str
    """`cuda` or `cpu`."""
    port_range: Sequence[int]
    """Lowest and highest port that it may get."""
    host: KindHost | None = None
    """What the services of its kind share in this trial; None if nothing is shared, or if it must start by itself."""


class KindHost(Protocol):
    """Something that all services of one kind share within a trial, such as a process that has their program imported."""

    def prepare(self, settings: Any) -> None:
        """Begin, without waiting, what a start can do beforehand."""

    def wait(self) -> float | None:
        """Wait until that is done and return the seconds waited, or None if nothing was prepared."""

    def close(self) -> None:
        """Leave nothing of it running."""


class ReservedMemory(Protocol):
    """Predicts the memory of services that reserve it."""

    def one(self, settings: Any, beside: Beside, device: DeviceMemory) -> Prediction:
        """Return the prediction for one service beside what the others hold when it starts. Raise UserError for a value that it cannot have."""

    def many(self, settings: Any, columns: Columns, beside: BesideMany, device: DeviceMemory, count: int) -> Predictions:
        """Return the predictions for many candidates, of which `columns` has the settings that vary. Raise UserError as `one` does."""

    def models(self) -> Mapping[str, str]:
        """Return the models that were asked for, and where the shapes of each are from."""

    def learn_start(self, settings: Any, log: str, info: Any, device: DeviceMemory) -> object | None:
        """Keep what a start taught, for later predictions; return None if it taught nothing.

        Args:
            settings: of the service.
            log: what it printed.
            info: what it reported when it was ready.
            device: as it was before the start.
        """


class ServiceKind(Protocol):
    """A kind of service, found by the entry point `tune_gpu.services`.

    `settings` is always an object of its `Settings`: a dataclass whose fields may carry rules (`config/rules.py`). The fields `env` (variables of
    its processes), `cpu_cores` (the cores it may use on the CPU), `start_timeout_s` and `mps_active_thread_pct` mean the same in every kind that has
    them. So do `model`, and `language` (what a recogniser is set to).
    """

    @property
    def name(self) -> str:
        """Return the name of the kind, as `kind` in a space has it."""

    @property
    def Settings(self) -> type[Any]:
        """Return the class of the settings under `services.<name>`, without `kind`."""

    @property
    def held(self) -> Collection[str]:
        """Return the variables that an evaluation sets itself, so that they cannot be a parameter."""

    @property
    def card_settings(self) -> Collection[str]:
        """Return the settings, and entries of mappings, that decide how many cards it spans; `_` for `-`."""

    def protocol(self, settings: Any) -> Api | None:
        """Return the protocol of its requests, or None if no request of ours can drive it."""

    def reserves(self, settings: Any) -> bool:
        """Return whether it claims its memory when it starts. Such services start after those whose memory grows."""

    def reuse_key(self, settings: Any) -> str | None:
        """Return a text that is equal for settings between which it need not be restarted, or None to start it anew for every candidate."""

    def gpus(self, settings: Any) -> Gpus:
        """Return the part of the cards that it takes. Raise UserError for settings that contradict one another."""

    def missing(self, device: str) -> str | None:
        """Return which package is not installed, with the command that installs it, or None if it can start on a device of this kind."""

    def footprint(self, settings: Any, device: DeviceMemory) -> Footprint | None:
        """Return the memory of a service that grows, or None if it is not modelled. A service that reserves is predicted by `memory`."""

    def memory(self, store: Any, version: str | None, *, warm: bool) -> ReservedMemory | None:
        """Return what predicts services of this kind that reserve their memory, or None if it has no such services, or no model of them.

        Args:
            store: calibrations from earlier starts, or None.
            version: of its program; None for the installed one.
            warm: they are started from a process that has their program imported.
        """

    def check_entry(self, key: str, setting: str, entry: str, value: Any) -> None:
        """Raise UserError for an entry of a mapping that no candidate may have; `key` is its place, for the message."""

    def check(self, name: str, settings: Any, *, local: bool) -> None:
        """Raise UserError for settings that cannot start.

        Args:
            name: of the service, for the key in the message (`services.<name>.<setting>`).
            settings: of one candidate.
            local: it will run on this machine, so that models, programs and cores can be looked for.
        """

    def launch(self, name: str, settings: Any, site: LaunchSite) -> RunningService[Any]:
        """Return the service, not yet started. Its failures name it by `name`."""

    def deployable(self, name: str, settings: Any, device: str, *, host: str, port: int, model: str = "") -> Deployable | None:
        """Return the service as it runs by itself at this address, with the arguments and the environment with which it is measured. Return
        None for a service that is not this program's to deploy.

        Args:
            name: of the service.
            settings: what is deployed.
            device: `cuda` or `cpu`.
            host: address at which it listens.
            port: of that address.
            model: name under which it serves its model; empty for a name by the settings.

        Raises:
            UserError: its program is not here.
        """

    def host(self, run: Any, device: str) -> KindHost | None:
        """Return what its services share within a trial (`run` has the settings of the run), or None. Nothing is started."""


InUse = Callable[[str], Sequence[Any] | None]
"""Function that returns all values that a setting may have in an experiment, or None if a condition decides when it has which."""


@runtime_checkable
class ChecksTogether(Protocol):
    """A kind with settings of which one rules out values of another."""

    def check_together(self, name: str, in_use: InUse) -> None:
        """Raise UserError for values of the service of this name that cannot be combined."""


@dataclass(frozen=True)
class Refusal:
    """Why a program refuses settings."""

    reason: str
    """It names the program, and has no dot at its end."""
    settings: tuple[str, ...]
    """The settings that it may mean (`setting` or `setting.entry`), the likeliest first; at least one."""


@runtime_checkable
class AsksProgram(Protocol):
    """A kind whose program can say before a start which values it refuses."""

    @property
    def asked(self) -> Collection[str]:
        """Return the settings whose values the program is asked for."""

    def refused(self, settings: Sequence[Any]) -> Sequence[Refusal | None]:
        """Return why the program refuses each of these settings, or None for those that it accepts. All None if the program is not there."""


@runtime_checkable
class ShowsEntries(Protocol):
    """A kind of which more is on a command line than `model`, `command` and `url`."""

    def shown(self, settings: Any) -> Mapping[str, Any]:
        """Return what every user can read there, by its place in the settings (`setting.entry`)."""


@runtime_checkable
class Versioned(Protocol):
    """A kind whose model of memory knows the versions of its program."""

    @property
    def name(self) -> str:
        """Return the name of the kind."""

    @property
    def label(self) -> str:
        """Return the name of the program, as people write it."""

    def installed_version(self) -> str | None:
        """Return the installed version, or None."""

    def version(self) -> str:
        """Return the version that is planned for unless another is given: the installed one, or the one that this program was made for."""

    def check_version(self, key: str, version: str) -> None:
        """Raise UserError for text that is not a version; `key` is how it was given."""


@runtime_checkable
class LearnsMemory(Protocol):
    """A kind whose model of memory is corrected by what earlier starts taught."""

    def calibrations(self) -> Any:
        """Open what earlier starts taught, for `memory`. Raise UserError if it cannot be used."""


@runtime_checkable
class SpellsEntries(Protocol):
    """A kind in whose mappings one thing may be written in several ways."""

    def entry_path(self, setting: str, entry: str) -> tuple[str, ...]:
        """Return what an entry of a mapping sets. If the path of one entry begins with that of another, both set the same."""


@runtime_checkable
class Examined(Protocol):
    """A kind that tells `tune-gpu doctor` more than which package is missing."""

    def examine(self, machine: Machine) -> Iterable[DoctorFinding]:
        """Yield what is here of what every service of this kind needs: a version, the libraries of a card, models. Nothing is started."""

    def examine_service(self, name: str, settings: Any) -> Iterable[DoctorFinding]:
        """Yield what is here of what one service needs that `check` accepts. Its findings are called by `name`. Raise UserError."""


@runtime_checkable
class Reports(Protocol):
    """The info of a service that reports facts of itself, such as the size of its cache."""

    def as_dict(self) -> Mapping[str, Any]:
        """Return the facts by name, as the artifacts have them."""


@dataclass(frozen=True)
class Service:
    """One service of a space: its name, its kind, and its settings."""

    name: str
    kind: ServiceKind = field(compare=False)
    settings: Any

    @property
    def reuse_key(self) -> str | None:
        """Return the key with which it may be kept for another candidate, or None."""
        key = self.kind.reuse_key(self.settings)
        return None if key is None else f"{self.kind.name}:{key}"

    @property
    def reserves(self) -> bool:
        """Return whether it claims its memory when it starts."""
        return self.kind.reserves(self.settings)

    @property
    def gpus(self) -> Gpus:
        """Return the part of the cards that it takes."""
        return self.kind.gpus(self.settings)

    def launch(self, site: LaunchSite) -> RunningService[Any]:
        """Return it, not yet started."""
        return self.kind.launch(self.name, self.settings, site)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a short text that is equal for equal settings, for a kind's `reuse_key`."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def start_order(services: Sequence[Service]) -> list[Service]:
    """Return the services in the order of starting: first those whose memory grows, then those that reserve theirs.

    Memory that grows depends on the input, so such a service is warmed up before another profiles what is free. Within both groups the order of the
    space stays.
    """
    return sorted(services, key=lambda service: service.reserves)
