"""Numbers that no setting may have: what is not finite anywhere, and what lies below the least that makes sense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from tune_gpu.config import ExperimentConfig
from tune_gpu.errors import UserError

_LEAST = {
    "services.whisper.cpu_threads": 0, "objective.max_wer": 0, "objective.max_failed_requests_pct": 0, "workload.background_prompt_tokens": 1,
    "search.seed": 0, "search.window_budget": 1, "promote.neighbours_mib": 0, "promote.neighbours_tolerance_mib": 0, "promote.soak_growth_pct": 0,
    "promote.probes": 1, "run.memory_stable_samples": 1, "run.memory_timeout_s": 0, "run.stop_timeout_s": 0, "run.hang_timeout_s": 0,
}  # fmt: skip
_ABOVE_0 = (
    "services.vllm.start_timeout_s", "services.whisper.start_timeout_s", "workload.audio.max_utterance_s", "workload.capacity_hopeless_load",
    "promote.soak_s", "promote.health_deadline_s", "promote.probe_max_ratio", "ray.connect_timeout_s", "run.time_budget_s",
    "run.memory_stable_mib",
)  # fmt: skip


def check_numbers(config: ExperimentConfig) -> None:
    """Raises UserError; null is left to the setting. What belongs together is checked where it is known (`tournament.check`, say)."""
    for name, value in _numbers(config, ""):
        if not math.isfinite(value):
            raise UserError(f"{name}={value}: allowed is a finite number")
        if name in _LEAST and value < _LEAST[name]:
            raise UserError(f"{name}={value}: allowed is {_LEAST[name]} or more")
        if name in _ABOVE_0 and value <= 0:
            raise UserError(f"{name}={value}: allowed is above 0")


def _numbers(settings: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """Every number among the settings, by its dotted name."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{field.name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + field.name, value
