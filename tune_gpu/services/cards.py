"""Count the cards of a candidate, by the settings of its services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target, settings_with
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check
from tune_gpu.services.base import Service
from tune_gpu.services.registry import services_of


def cards_of(services: Sequence[Service]) -> int:
    """Return how many cards these services span together: all begin at the first. Raise UserError for sizes that contradict one another."""
    return max((service.gpus.cards for service in services), default=1) or 1


def fewest_cards(config: ExperimentConfig) -> int:
    """Return the least number of cards that a candidate spans."""
    return min(cards_of(services_of(settings_with(config, params))) for params in divisions(config))


def most_cards(config: ExperimentConfig) -> int:
    """Return the greatest number of cards that a candidate spans."""
    return max(cards_of(services_of(settings_with(config, params))) for params in divisions(config))


def divisions(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return every combination of the parameters that decide the number of cards. Sizes multiply, and two may vary at once."""
    deciding = {service.name: service.kind.card_settings for service in services_of(config.services)}
    names = {name for name, spec in config.parameters.items() if _decides(Target.parse(spec.target), deciding)}
    while parents := {parent for name in names for parent in config.parameters[name].when} - names:
        names |= parents
    found: list[dict[str, Any]] = [{}]
    if not names:
        return found
    space = SearchSpace.from_specs(config.parameters)
    for name, parameter in space.parameters.items():
        if name in names:
            # Within a range more than its ends may matter.
            asked = [value for spec in config.parameters.values() for value in spec.when.get(name, [])]
            values = [*values_to_check(parameter), *asked]
            found = [more for params in found for more in ([{**params, name: v} for v in values] if space.active(parameter, params) else [params])]
    return found


def _decides(target: Target, deciding: dict[str, Any]) -> bool:
    return (target.entry or target.setting).replace("-", "_") in deciding.get(target.service, ())
