"""The services of a space, each with its kind."""

from __future__ import annotations

from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.service_settings import SpaceServices
from tune_gpu.config.space_services import resolved
from tune_gpu.services.base import LearnsMemory, Service


def services_of(services: SpaceServices) -> tuple[Service, ...]:
    """Return the services in the order of the space."""
    return tuple(Service(name, kind, settings) for name, kind, settings in resolved(services))


def calibrations_of(services: SpaceServices) -> dict[str, Any]:
    """Return what earlier starts taught, by kind, for the kinds that learn. Raise UserError if it cannot be used."""
    return {service.kind.name: service.kind.calibrations() for service in services_of(services) if isinstance(service.kind, LearnsMemory)}


def missing_here(services: SpaceServices, device: str) -> str | None:
    """Return which service's program for this device is not installed, with the command that installs it, or None."""
    reasons = ((service.name, service.kind.missing(device)) for service in services_of(services))
    return next((f"{name}: {why}" for name, why in reasons if why is not None), None)


def check_installed(services: SpaceServices, device: str) -> None:
    """Raise UserError if a service's program for this device is not installed, with the command that installs it."""
    if (why := missing_here(services, device)) is not None:
        raise UserError(f"device={device}: {why}")
