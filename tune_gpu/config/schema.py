"""Structured configs: what a user may set, merged by OmegaConf and checked by `rules`.

A run's configuration is one `ExperimentConfig`: the defaults below, then a YAML of `search_spaces/`, then that YAML's overlay for
the device (`devices: {cpu: …}`), then `key=value` and `~key` from the command line. An unknown key is an error that names the nearest
known one. Units stand in the names (`_s`, `_ms`, `_mib`). A setting's rule stands beside it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.config.measure_settings import AudioSettings, ConfirmSettings, TelemetrySettings, TextSettings, WorkloadSettings
from tune_gpu.config.objective_rules import objective_conflicts
from tune_gpu.config.rules import By, one_of, ruled
from tune_gpu.config.run_settings import PromoteSettings, RaySettings, RunSettings, ServiceTarget
from tune_gpu.config.search_settings import ObjectiveSettings, ParameterSpec, SearchSettings
from tune_gpu.config.service_settings import Services
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.config.texts import check_name
from tune_gpu.config.traffic_key import Spelling

__all__ = [
    "AudioSettings", "ConfirmSettings", "ExperimentConfig", "ObjectiveSettings", "ParameterSpec", "PromoteSettings", "RaySettings", "RunSettings",
    "SearchSettings", "ServiceTarget", "Services", "TelemetrySettings", "TextSettings", "WorkloadSettings",
]  # fmt: skip
_FEWEST_TURNS = 0.01
"""Of a window, in the mean."""


@dataclass
class ExperimentConfig:
    """One experiment: what may vary, what it is judged by, and how it is run."""

    name: str = ruled("experiment", By(check_name))
    description: str = ""
    device: str = one_of("auto", "auto", "cpu", "cuda")
    """`auto`, `cuda` or `cpu`. `cuda` where there is none is an error, never a quiet measurement on the CPU."""
    parameters: dict[str, ParameterSpec] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    services: Services = field(default_factory=Services)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    workload: WorkloadSettings = field(default_factory=WorkloadSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    confirm: ConfirmSettings = field(default_factory=ConfirmSettings)
    promote: PromoteSettings = field(default_factory=PromoteSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    run: RunSettings = field(default_factory=RunSettings)
    spelling = Spelling()  # no field: how the user spells a section is no setting of the run

    def conflicts(self, _at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message. What holds for some spaces only: `experiment/space_check.py`."""
        workload = self.workload
        if self.search.racing and workload.windows < 2:
            yield f"search.racing=true: workload.windows={workload.windows} is too few, because one window has no uncertainty. Set workload.windows to at least 2."
        turns = workload.turn_rate_per_s * min(seconds for seconds in (workload.window_s, workload.solo_window_s, self.confirm.window_s) if seconds)
        if not workload.has_sessions and turns < _FEWEST_TURNS:  # windows are drawn until somebody speaks in one
            yield (
                f"workload.turn_rate_per_s={workload.turn_rate_per_s:g}: {turns:.2g} voice turns in a window are too few. Have at least {_FEWEST_TURNS:g}, "
                "by longer windows (workload.window_s) or more turns."
            )
        yield from objective_conflicts(self, catalogue_for(self))
