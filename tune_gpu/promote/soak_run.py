"""The soak of a run's winner on this machine or cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tune_gpu.artifacts.finished_run import FinishedRun
from tune_gpu.artifacts.redaction import restore_secrets
from tune_gpu.common.imports import uncollected
from tune_gpu.promote.gate import Condition

_PATIENCE = 1_000_000
"""Maximum number of disturbed windows that are repeated. A long soak has more of them than an evaluation, and they are not the winner's
fault."""


def soak_winner(run: FinishedRun, kind: str, print_line: Callable[[str], None]) -> tuple[Condition, dict[str, Any]]:
    """Keep the winner under load for `promote.soak_s`. Return the condition and the gate's record of the soak (empty if the actor was
    lost)."""
    with uncollected():
        from tune_gpu.compare.measuring_actor import MeasurementLost, measured_as, measurement_client
        from tune_gpu.promote.soak import hold_under_load, judge_soak
        from tune_gpu.ray_tune.placement import measurement_resources
        from tune_gpu.ray_tune.session import local_or_joined_ray

    settings = run.config.promote
    restore_secrets(run.config)
    print_line(f"soak: keeping the winner under load for {settings.soak_s:g} s")
    patient = replace(run.config, telemetry=replace(run.config.telemetry, max_invalid_windows=_PATIENCE))
    config = measured_as(patient, capacity=False, windows=None, window_s=None)
    try:
        with local_or_joined_ray(config.ray), measurement_client(config, kind, measurement_resources(config, kind), print_line) as client:
            soak = hold_under_load(client, run.winner, settings.soak_s, print_line)
    except MeasurementLost as error:
        return Condition("soak", False, str(error)), {}
    return judge_soak(soak, settings.soak_growth_pct), soak.as_dict()
