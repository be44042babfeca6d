"""Where the services of a space are deployed: the unit of each, its address, and the variable that holds its key."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from urllib.parse import urlsplit

from tune_gpu.common.default_pair import LLM
from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import nearest
from tune_gpu.config.run_settings import PromoteSettings, ServiceTarget
from tune_gpu.config.service_settings import PAIR
from tune_gpu.services.base import Service

FIRST_PORT = 8000
"""Lowest port of a service whose address is not set."""
_NAMED = LLM.name
"""Service of the default pair that `promote.served_model_name` names."""
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class Place:
    """Where one service runs and answers. The state on disk has it, so that a rollback needs nothing else."""

    name: str
    """Of the service."""
    unit: str
    url: str
    """Its address, without the path of an API."""
    key_env: str = ""
    """Variable that holds its key; empty for a service that asks for none."""
    health: str = "/health"
    """Path that answers once it is ready."""
    key: str = ""
    """The setting that has its target, for messages."""

    @property
    def health_url(self) -> str:
        """Return the address that answers once the service is ready."""
        return self.url.rstrip("/") + self.health

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return address_of(self.url)


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of an address."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or (443 if parts.scheme == "https" else 80))


def targets_of(settings: PromoteSettings, services: Sequence[Service]) -> dict[str, ServiceTarget]:
    """Return where each service goes, in the order of the space, with the defaults for what is not set.

    The default pair's services have keys of their own (`promote.vllm`), whose defaults are what earlier versions deployed.

    Raises:
        UserError: a target for a service that the space does not have.
    """
    names = [service.name for service in services]
    for name in settings.services:
        if name not in names:
            raise UserError(f"promote.services.{name}: the run has no such service{nearest(name, names)}. Use one of {', '.join(names)}.")
    named = settings.served_model_name
    if named and not any(service.name == _NAMED and _is_of_pair(service) for service in services):
        raise UserError(f"promote.served_model_name={named}: names the model of the default pair. Set promote.services.NAME.model.")
    given = {service.name: _given(settings, service) for service in services}
    taken = {address_of(target.url)[1] for target in given.values() if target.url}
    free = (port for port in itertools.count(FIRST_PORT) if port not in taken)
    return {
        name: replace(target, unit=target.unit or f"tune-gpu-{name}.service", url=target.url or f"http://127.0.0.1:{next(free)}")
        for name, target in given.items()
    }


def key_of_target(service: Service) -> str:
    """Return the setting that has the target of a service, for messages."""
    return f"promote.{service.name}" if _is_of_pair(service) else f"promote.services.{service.name}"


def check_apart(places: Sequence[Place], elsewhere: Sequence[tuple[str, str]]) -> None:
    """Raise UserError if two services share a unit or an address.

    Args:
        places: of the services that are deployed.
        elsewhere: name and address of each service that runs already.
    """
    for place, other in itertools.combinations(places, 2):
        if place.unit == other.unit:
            raise UserError(f"{other.key}.unit={other.unit}: the same unit as that of {place.name}. Give each service a unit of its own.")
    known = [(place.name, place.url) for place in places]
    for number, place in enumerate(places):
        for name, url in [*elsewhere, *known[:number]]:
            if _collide(address_of(url), place.address):
                raise UserError(f"{place.key}.url={place.url}: the same address as that of {name}. Give each service a port of its own.")


def check_named_model(place: Place, wanted: str, served: str) -> None:
    """Raise UserError if a service cannot serve its model under the name that is wanted."""
    if wanted and served != wanted:
        raise UserError(f"{place.key}.model={wanted}: {place.name} names its model itself ({served or 'no name'}). Remove that setting.")


def places_of_pair(settings: PromoteSettings, order: Sequence[str]) -> tuple[Place, ...]:
    """Return the default pair's places, for a state that an earlier version wrote: it has no services.

    Args:
        settings: with which it was applied.
        order: of starting.
    """
    found = []
    for name in order:
        target: ServiceTarget = getattr(settings, name)
        found.append(Place(name, target.unit, target.url, target.key_env, key=f"promote.{name}"))
    return tuple(found)


def _is_of_pair(service: Service) -> bool:
    return PAIR.get(service.name) == service.kind.name


def _given(settings: PromoteSettings, service: Service) -> ServiceTarget:
    own: ServiceTarget = getattr(settings, service.name) if _is_of_pair(service) else ServiceTarget()
    over = settings.services.get(service.name, ServiceTarget())
    if service.name == _NAMED and _is_of_pair(service):
        own = replace(own, model=own.model or settings.served_model_name or "")
    return replace(own, **{each.name: value for each in fields(over) if (value := getattr(over, each.name))})


def _collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    hosts = {"127.0.0.1" if host == "localhost" else host for host, _ in (one, other)}
    return one[1] == other[1] and (len(hosts) == 1 or bool(hosts & set(_ANY_HOST)))
