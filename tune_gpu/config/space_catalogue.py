"""The catalogue of metrics of a space, and the default names in its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.service_settings import PAIR as PAIRS_KINDS
from tune_gpu.config.service_settings import SpaceServices
from tune_gpu.config.settings_files import one_line
from tune_gpu.metrics import DEFAULT_PAIR, PAIR, catalogue_of

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig


def catalogue_for(config: ExperimentConfig) -> Catalogue:
    """Return the metrics of a configuration's services."""
    return catalogue_of(protocols_of(config.services))


def protocols_of(services: SpaceServices) -> Mapping[str, Protocol | None]:
    """Return the protocol of each service by its name; None for a service that no request can drive."""
    from tune_gpu.config.space_services import kinds_of, resolved

    if dict(kinds_of(services)) == PAIRS_KINDS:
        return DEFAULT_PAIR
    return {name: kind.protocol(settings) for name, kind, settings in resolved(services)}


def recorded_catalogue(content: Mapping[str, Any]) -> Catalogue:
    """Return the metrics of the services in a run's `config.yaml`, as it was read. Raise UserError if it does not say what they are."""
    from tune_gpu.config.loader import config_of
    from tune_gpu.config.space_services import kinds_of_layers

    if dict(kinds_of_layers([content])) == PAIRS_KINDS:
        return PAIR
    try:
        return catalogue_for(config_of({"services": content["services"]}))
    except Exception as error:  # OmegaConf's own, for a file that somebody else wrote
        raise UserError(f"config.yaml: services: {one_line(error)}") from error


def name_defaults(config: ExperimentConfig) -> None:
    """Put the space's own names in place of the default pair's, in the settings whose defaults name metrics.

    The schema's defaults are those of the default pair: a space that names its services has its metrics under other names.
    """
    catalogue = catalogue_for(config)
    if catalogue is PAIR:
        return
    usual, given = PAIR.tolerances(), config.confirm.tolerances
    if usual.keys() <= given.keys():  # a mapping that was given whole has replaced the defaults
        changed = {name: value for name, value in given.items() if usual.get(name) != value}
        config.confirm.tolerances = catalogue.tolerances() | changed
    config.confirm.metric = _named(config.confirm.metric, catalogue)
    config.promote.metric = _named(config.promote.metric, catalogue)


def _named(metric: str, catalogue: Catalogue) -> str:
    """Return the space's name of a turn's metric that has the default pair's; any other name as it is."""
    entry = PAIR.in_comparison(metric)
    if entry is None or catalogue.in_comparison(metric) is not None or not (bound := catalogue.of_entry(entry)) or bound[0].service:
        return metric
    return bound[0].compared_name + metric.removeprefix(entry.compared_name)
