"""Build the search of a run from its configuration."""

from __future__ import annotations

from tune_gpu.artifacts.redaction import without_secrets
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Tournament
from tune_gpu.services import mps_policy as sharing
from tune_gpu.services.deployment import start_key


def new_tournament(config: ExperimentConfig, refusals: Refusals) -> Tournament:
    """Return the search of a configuration, before its first proposal. Candidates that share an engine follow each other."""
    config = without_secrets(config)  # the rules and the order refer to it, and Tune pickles them with the searcher
    space = SearchSpace.from_specs(config.parameters)
    rules = [rule for rule in (refusals.allowed(space), sharing.allowed(config, config.device)) if rule is not None]
    return Tournament(
        SearchSpace.from_specs(config.parameters, allowed=(lambda params: all(rule(params) for rule in rules)) if rules else None),
        config.search,
        baseline=config.baseline or None,
        order_key=lambda params: start_key(config, params),
    )
