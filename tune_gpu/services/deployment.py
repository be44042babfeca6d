"""What a candidate means for its services: resolved once, and not changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.services.base import Service
from tune_gpu.services.cards import cards_of
from tune_gpu.services.registry import services_of


@dataclass(frozen=True)
class Deployment:
    """A candidate's parameters, and what they are resolved to. Whoever needs other settings makes other ones."""

    params: Mapping[str, Any]
    services: tuple[Service, ...]
    n_cards: int
    """Cards that its services span; 1 on the CPU."""

    def __getitem__(self, name: str) -> Service:
        """Return the service of this name. Raise KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)


def resolve(config: ExperimentConfig, params: Mapping[str, Any], device: str) -> Deployment:
    """Return the deployment of a candidate on a device of this kind (`cuda` or `cpu`).

    Raises:
        UserError: a target that is no setting, or a parallel size that is no whole number from 1.
    """
    services = services_of(settings_with(config, params))
    return Deployment(dict(params), services, cards_of(services) if device == "cuda" else 1)


def start_key(config: ExperimentConfig, params: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a key by which candidates are ordered, so that as few services as possible start anew between them.

    Services that reserve their memory come first in it, because their starts cost most. One that starts anew for every candidate has no
    influence.
    """
    services = services_of(settings_with(config, params))
    reserving, growing = (tuple(service.reuse_key or "" for service in services if service.reserves is wanted) for wanted in (True, False))
    return reserving, growing
