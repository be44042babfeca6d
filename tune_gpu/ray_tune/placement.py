"""What a trial asks Ray for, and how many may run at once: pure, from the configuration.

On a card a trial is one placement group: a bundle for the load generator, and one with the cards and the services. In the second, the actor of
a service that reserves memory holds its share of the card, and those whose memory grows hold equal parts of the rest. Ray's fractions reserve no
memory; they only keep two trials off one card.
On the CPU all services are processes of the trial's own actor: no device needs a placement, and more actors would only make each start slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.services.base import Service
from tune_gpu.services.cards import divisions, fewest_cards, most_cards
from tune_gpu.services.deployment import Deployment, resolve
from tune_gpu.services.registry import services_of

_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class TrialResources:
    """Resources of one trial, by Ray's names."""

    load: Mapping[str, float]
    """The first bundle: the trial itself."""
    services: Mapping[str, float] | None = None
    """The second: all services; None if they are the trial's own processes."""
    gpus: Mapping[str, float] = field(default_factory=dict)
    """Service -> its part of the cards. 0 beside a service on several cards: Ray has no fraction of several cards, so that one holds them whole."""
    cpus_per_service: float = 0.0

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Return the bundles of Ray's placement group."""
        return [dict(self.load), *([dict(self.services)] if self.services is not None else [])]


def trial_resources(config: ExperimentConfig, deployment: Deployment, kind: str) -> TrialResources:
    """Return what the trial of this candidate asks for on a device of this kind (`cuda` or `cpu`)."""
    ray = config.ray
    if kind != "cuda":
        return TrialResources({"CPU": ray.cpus_per_trial})
    cards, placed = deployment.n_cards, [service for service in deployment.services if service.gpus.cards]
    whole = float(cards) if ray.trials_per_card == 1 else _floor(1.0 / ray.trials_per_card)
    # A service without a card is an actor in this bundle, too, and would wait for its cores for ever.
    services = {"GPU": whole, "CPU": len(deployment.services) * ray.cpus_per_service}
    return TrialResources({"CPU": ray.cpus_per_trial}, services, _parts(placed, whole, cards), ray.cpus_per_service)


def _parts(services: Sequence[Service], whole: float, cards: int) -> dict[str, float]:
    """Return each service's part of the cards."""
    if cards > 1:
        widest = next(service.name for service in services if service.gpus.cards == cards)
        return {service.name: whole if service.name == widest else 0.0 for service in services}
    left = whole
    parts: dict[str, float] = {}
    reserved = [(service.name, share) for service in services if (share := service.gpus.share) is not None]
    for number, (name, share) in enumerate(reserved):
        others = len(services) - number - 1  # each of them needs a grain to be put on the card at all
        parts[name] = max(1 / _GRAIN, _floor(min(share, left - others / _GRAIN)))
        left -= parts[name]
    growing = [service.name for service in services if service.name not in parts]
    for name in growing:
        parts[name] = _floor((left + 0.1 / _GRAIN) / len(growing))
    return parts


def measurement_resources(config: ExperimentConfig, kind: str) -> dict[str, float]:
    """Return the resources of an actor that measures several candidates in turn: what the largest of them needs.

    The services are the actor's own processes.
    """
    if kind != "cuda":
        return {"CPU": config.ray.cpus_per_trial}
    cores = config.ray.cpus_per_trial + len(services_of(config.services)) * config.ray.cpus_per_service
    return {"CPU": cores, "GPU": float(most_cards(config))}


def _floor(amount: float) -> float:
    return math.floor(amount * _GRAIN + 1e-6) / _GRAIN


@dataclass(frozen=True)
class Concurrency:
    """How many trials run at once, and the reason as text."""

    trials: int
    why: str


def concurrency(config: ExperimentConfig, kind: str, n_cards: int) -> Concurrency:
    """Return how many trials run at once: at most what the cards hold. On the CPU it is one, unless `ray.max_concurrent_trials` is set."""
    ray = config.ray
    if kind != "cuda":
        trials = ray.max_concurrent_trials or 1
        return Concurrency(trials, "one trial at a time" if trials == 1 else f"{trials} trials at once, which disturb each other if they share cores")
    smallest = fewest_cards(config)
    most = n_cards // smallest * ray.trials_per_card
    trials = max(1, min(most, ray.max_concurrent_trials or most))
    cards = f"{n_cards} card{'s' if n_cards != 1 else ''}"
    if ray.trials_per_card > 1:
        return Concurrency(trials, f"up to {trials} trials at once on {cards}, {ray.trials_per_card} to a card: coarse numbers, each marked so")
    each = "one to a card" if smallest == 1 else f"{smallest} cards to a trial"
    return Concurrency(trials, f"up to {trials} trial{'s' if trials != 1 else ''} at once on {cards}, {each}")


def check_resources(config: ExperimentConfig, kind: str) -> None:
    """Raise UserError for settings of `ray` that no trial could run with."""
    ray = config.ray
    if kind != "cuda":
        return
    most = most_cards(config)
    if ray.trials_per_card > 1 and most > 1:
        raise UserError(f"ray.trials_per_card={ray.trials_per_card}: an engine on {most} cards shares them with no other trial. Set it to 1.")
    for params in _corners(config):
        for service in services_of(settings_with(config, params)):
            share = service.gpus.share
            if ray.trials_per_card > 1 and share is not None and share >= 1 / ray.trials_per_card:
                key = f"the share of {service.name}"
                raise UserError(f"ray.trials_per_card={ray.trials_per_card}: {key}, {share:g}, leaves no room for the others. Set it below {1 / ray.trials_per_card:g}.")


def check_cards(config: ExperimentConfig, most_on_a_node: int) -> None:
    """Raise UserError if no node has the cards that a candidate's service spans (a trial runs on one node)."""
    for params in divisions(config):
        for service in services_of(settings_with(config, params)):
            if service.gpus.cards > most_on_a_node:
                sizes = " x ".join(f"{service.name}.{size}" for size in service.gpus.sizes) or "one card"
                raise UserError(f"{sizes}: no node has so many cards. Use at most {most_on_a_node}.")


def check_cores(config: ExperimentConfig, kind: str, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise UserError if no node has both the cards and the cores of a candidate: Ray would wait for one without a message.

    Args:
        config: checked.
        kind: `cuda` or `cpu`.
        nodes: all resources of each node, by Ray's names.
    """
    for params in divisions(config):
        bundles = trial_resources(config, resolve(config, params, kind), kind).bundles
        cores, cards = (sum(bundle.get(name, 0.0) for bundle in bundles) for name in ("CPU", "GPU"))
        most = max((node.get("CPU", 0.0) for node in nodes if node.get("GPU", 0.0) >= cards), default=0.0)
        if cores > most:
            n_services = len(services_of(config.services))
            asked = f"ray.cpus_per_trial={config.ray.cpus_per_trial:g}"
            asked += f", ray.cpus_per_service={config.ray.cpus_per_service:g} (of {n_services} services)" if kind == "cuda" else ""
            with_cards = " with the cards" if kind == "cuda" else ""
            raise UserError(f"{asked}: no node{with_cards} has {cores:g} cores for a trial. Ask for at most {most:g} in all.")


def _corners(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return `services` with every value of every parameter once: enough for what a single setting decides."""
    alone: list[dict[str, Any]] = [{}]
    for name, spec in config.parameters.items():
        values = spec.values if spec.values is not None else [spec.low, spec.high]
        alone += [{name: value} for value in values if value is not None]
    return alone

