"""Where the arms of a comparison come from, and which of their values lie outside the run's space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.artifacts.records.comparison import ArmSource, arm_label
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.search.space import SearchSpace


@dataclass(frozen=True)
class Origin:
    """Where an arm's parameters come from."""

    source: ArmSource
    outside: Mapping[str, Any] = field(default_factory=dict)
    """Values that the run's space does not have."""

    @property
    def label(self) -> str:
        """Return what to say beside the arm's name; empty for an arm of the run's own."""
        return arm_label(self.source, self.outside)


def origin_of(config: ExperimentConfig, params: Mapping[str, Any], source: ArmSource) -> Origin:
    """Return the origin of an arm of a run with this configuration."""
    known = SearchSpace.from_specs(config.parameters).parameters
    return Origin(source, {name: value for name, value in params.items() if name in known and value not in known[name]})
