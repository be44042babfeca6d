"""The hash of a traffic: results of different traffic must not be compared, and a run must not be resumed under another.

It is of what decides which requests are sent: the settings of the traffic, what the sources contain (not where they lie), the stages of a turn, and
the version of the rules of planning. The seed is not part of it, nor is how long and how often is measured: both stand beside it in the artifacts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

from tune_gpu.common.errors import UserError
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig, WorkloadSettings
from tune_gpu.workload.inputs import load_inputs
from tune_gpu.workload.sessions.plan import RULE as OF_SESSIONS
from tune_gpu.workload.sources.loaded import load_sources
from tune_gpu.workload.stages import background_of, stages_of

RULES = {"requests": 1, "sessions": OF_SESSIONS}
"""Versions of the rules of planning."""
_NOT_SENT = frozenset({
    "windows", "window_s", "solo_window_s", "warmup_turns", "request_timeout_s", "max_inflight_turns", "capacity_max_sessions", "capacity_step_s", "capacity_hopeless_load",
})  # fmt: skip
"""Settings that decide how long and how often is measured, and when an answer is late."""
_PLACES = frozenset({"source", "file", "tools", "format"})
"""Settings that say where something lies. Its content counts."""


class Content(Protocol):
    """What a traffic is made from, besides its settings."""

    @property
    def digest(self) -> str:
        """Return a hash of it."""


def traffic_hash(config: ExperimentConfig, sources: Content) -> str:
    """Return the hash of a space's traffic, 16 hexadecimal digits.

    Args:
        config: of the space.
        sources: what its traffic is made from: `Inputs`, or `SessionSources` for sessions.
    """
    workload = config.workload
    parts = {
        "rule": RULES[workload.kind],
        "turn": [[stage.service, str(stage.protocol)] for stage in stages_of(config)],
        "settings": {name: value for name, value in _changed(workload, WorkloadSettings()).items() if name not in _NOT_SENT},
        "sources": sources.digest,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def planned_hash(config: ExperimentConfig) -> str | None:
    """Return the hash of a space's traffic with its sources read anew; None if they are on a cluster and not here.

    Raises:
        UserError: a source of this machine cannot be read.
    """
    try:
        return _planned_hash(config)
    except UserError:
        if config.ray.address is None:
            raise
        return None


def _planned_hash(config: ExperimentConfig) -> str:
    language = spoken_language(config)
    if config.workload.has_sessions:
        return traffic_hash(config, load_sources(config.workload, stages_of(config), language))
    return traffic_hash(config, load_inputs(config.workload, (*stages_of(config), *background_of(config)), language))


def _changed(settings: Any, usual: Any) -> dict[str, Any]:
    """Return the settings that differ from the defaults, so that a new setting of this program changes no hash."""
    found: dict[str, Any] = {}
    for each in fields(settings):
        value, default = getattr(settings, each.name), getattr(usual, each.name)
        if each.name in _PLACES or value == default:
            continue
        if is_dataclass(value):
            value = _changed(value, default)
        elif isinstance(value, Mapping):
            value = {name: _entry(entry) for name, entry in value.items()}
        if value != {} or not is_dataclass(default):
            found[each.name] = value
    return found


def _entry(entry: Any) -> Any:
    """Return what a mapping's value adds: of settings, those that differ from the defaults."""
    usual: Any = type(entry)
    return _changed(entry, usual()) if is_dataclass(entry) else entry
