"""What a candidate means for its services: resolved once, and not changed afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tune_gpu.config.schema import ExperimentConfig, Services, VllmSettings
from tune_gpu.config.targets import settings_with
from tune_gpu.services.vllm.parallelism import cards_of


@dataclass(frozen=True)
class Deployment:
    """A candidate's parameters, and what they are resolved to. Whoever needs other settings makes other ones."""

    params: Mapping[str, Any]
    services: Services
    engine_key: str
    """Equal for candidates whose engine need not be restarted between them."""
    n_cards: int
    """Cards that the engine spans; 1 on the CPU."""

    @property
    def card_share(self) -> float:
        """Return the share of each card's memory that the engine reserves."""
        return float(self.services.vllm.gpu_memory_utilization)


def resolve(config: ExperimentConfig, params: Mapping[str, Any], device: str) -> Deployment:
    """Return the deployment of a candidate on a device of this kind (`cuda` or `cpu`).

    Raises:
        UserError: a target that is no setting, or a parallel size that is no whole number from 1.
    """
    services = settings_with(config, params)
    return Deployment(dict(params), services, engine_key(services.vllm), cards_of(services.vllm) if device == "cuda" else 1)


def engine_key(settings: VllmSettings) -> str:
    """Return a text that is equal for engines that need not be restarted between two candidates."""
    return hashlib.sha256(json.dumps(asdict(settings), sort_keys=True, default=str).encode()).hexdigest()[:12]
