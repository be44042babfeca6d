"""What a trial asks Ray for, and how many may run at once: pure, from the configuration.

On a card a trial is one placement group: a bundle for the load generator, and one with the cards and the services. In the second, vLLM's
actor holds its share of the card and Whisper's actor the rest. Ray's fractions reserve no memory; they only keep two trials off one card.
On the CPU both services are processes of the trial's own actor: no device needs a placement, and two more actors would only make each
start slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.services.deployment import Deployment, resolve
from tune_gpu.services.vllm.parallelism import cards_of, divisions, fewest_cards, most_cards, parallel_sizes

_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""
@dataclass(frozen=True)
class TrialResources:
    """Resources of one trial, by Ray's names."""

    load: Mapping[str, float]
    """The first bundle: the trial itself."""
    services: Mapping[str, float] | None = None
    """The second: both services; None if they are the trial's own processes."""
    vllm_gpus: float = 0.0
    whisper_gpus: float = 0.0
    """0 beside an engine on several cards: Ray has no fraction of several cards, so the engine holds them whole. Whisper runs on the first."""
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
    cards = deployment.n_cards
    whole = float(cards) if ray.trials_per_card == 1 else _floor(1.0 / ray.trials_per_card)
    services = {"GPU": whole, "CPU": 2 * ray.cpus_per_service}
    if cards > 1:
        return TrialResources({"CPU": ray.cpus_per_trial}, services, whole, 0.0, ray.cpus_per_service)
    share = min(deployment.card_share, whole - 1 / _GRAIN)
    vllm = max(1 / _GRAIN, _floor(share))
    return TrialResources({"CPU": ray.cpus_per_trial}, services, vllm, _floor(whole - vllm + 0.1 / _GRAIN), ray.cpus_per_service)


def measurement_resources(config: ExperimentConfig, kind: str) -> dict[str, float]:
    """Return the resources of an actor that measures several candidates in turn: what the largest of them needs.

    The services are the actor's own processes.
    """
    if kind != "cuda":
        return {"CPU": config.ray.cpus_per_trial}
    cards = most_cards(config)
    return {"CPU": config.ray.cpus_per_trial + 2 * config.ray.cpus_per_service, "GPU": float(cards)}


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
        share = float(settings_with(config, params).vllm.gpu_memory_utilization)
        if ray.trials_per_card > 1 and share >= 1 / ray.trials_per_card:
            raise UserError(
                f"ray.trials_per_card={ray.trials_per_card}: vllm.gpu_memory_utilization={share:g} leaves no room for the others. Set vllm.gpu_memory_utilization "
                f"below {1 / ray.trials_per_card:g}."
            )


def check_cards(config: ExperimentConfig, most_on_a_node: int) -> None:
    """Raise UserError if no node has the cards that a candidate's engine spans (a trial runs on one node)."""
    for params in divisions(config):
        engine = settings_with(config, params).vllm
        if cards_of(engine) > most_on_a_node:
            sizes = " x ".join(f"vllm.{name}={size}" for name, size in parallel_sizes(engine).items() if size > 1) or "one card"
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
            asked = f"ray.cpus_per_trial={config.ray.cpus_per_trial:g}"
            asked += f", ray.cpus_per_service={config.ray.cpus_per_service:g} (of two services)" if kind == "cuda" else ""
            with_cards = " with the cards" if kind == "cuda" else ""
            raise UserError(f"{asked}: no node{with_cards} has {cores:g} cores for a trial. Ask for at most {most:g} in all.")


def _corners(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return `services` with every value of every parameter once: enough for what a single setting decides."""
    alone: list[dict[str, Any]] = [{}]
    for name, spec in config.parameters.items():
        values = spec.values if spec.values is not None else [spec.low, spec.high]
        alone += [{name: value} for value in values if value is not None]
    return alone

