"""Sharing a card harder than by time: which candidates ask for MPS, and whether they may. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.config.targets import Target

SETTING = "mps_active_thread_pct"


def asks_for_mps(services: Services) -> bool:
    """Return whether a service is held to a part of the card's multiprocessors."""
    return any(pct is not None and pct < 100 for pct in (services.vllm.mps_active_thread_pct, services.whisper.mps_active_thread_pct))


def forbidden(config: ExperimentConfig, kind: str) -> str | None:
    """Return why no candidate may use MPS in this run; null if it may."""
    if kind != "cuda":
        return "MPS divides NVIDIA cards only"
    return None if config.run.mps else "MPS is not permitted: with run.mps=true the run starts and stops its daemon"


def allowed(config: ExperimentConfig, kind: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """The known constraint for the search: candidates that ask for what is forbidden are never proposed. Null if nothing is."""
    names = [name for name, spec in config.parameters.items() if Target.parse(spec.target).setting == SETTING]
    if not names or forbidden(config, kind) is None:
        return None
    return lambda params: all(params.get(name) is None or params[name] >= 100 for name in names)


def check(config: ExperimentConfig, kind: str) -> None:
    """Raises UserError for MPS in `services` or the baseline where it is forbidden."""
    why = forbidden(config, kind)
    if why is not None and asks_for_mps(config.services):
        raise UserError(f"services.*.{SETTING}: {why}")
    rule = allowed(config, kind)
    if rule is not None and config.baseline and not rule(config.baseline):
        raise UserError(f"baseline: it asks for MPS ({SETTING}); {why}")
