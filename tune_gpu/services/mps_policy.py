"""Decide which candidates use MPS, and whether they may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target
from tune_gpu.services.base import Service
from tune_gpu.services.registry import services_of

SETTING = "mps_active_thread_pct"


def asks_for_mps(services: Iterable[Service]) -> bool:
    """Return True if a service is limited to a part of the card's multiprocessors."""
    return any(pct is not None and pct < 100 for service in services for pct in [getattr(service.settings, SETTING, None)])


def forbidden(config: ExperimentConfig, kind: str) -> str | None:
    """Return why no candidate may use MPS in this run, or None if it may."""
    if kind != "cuda":
        return "MPS divides NVIDIA cards only"
    return None if config.run.mps else "run.mps is off. Set run.mps=true to let the run start and stop its daemon"


def allowed(config: ExperimentConfig, kind: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return a constraint that keeps the search from proposing what is forbidden, or None if nothing is."""
    names = [name for name, spec in config.parameters.items() if Target.parse(spec.target).setting == SETTING]
    if not names or forbidden(config, kind) is None:
        return None
    return lambda params: all(params.get(name) is None or params[name] >= 100 for name in names)


def check_mps(config: ExperimentConfig, kind: str) -> None:
    """Raise UserError if `services` or the baseline use MPS where it is forbidden."""
    why = forbidden(config, kind)
    if why is not None and asks_for_mps(services_of(config.services)):
        raise UserError(f"services.*.{SETTING}: {why}")
    rule = allowed(config, kind)
    if rule is not None and config.baseline and not rule(config.baseline):
        raise UserError(f"baseline: it uses MPS ({SETTING}): {why}")
