"""A confirmation fits into its budget before it begins, or is not begun and says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_run import FAST, SLOW, line
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.plan import plan
from tune_gpu.compare.confirmation import confirm_run
from tune_gpu.compare.forecast import DeploymentTimes, forecast, predicted_confirmation, times_of, typical_times
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import ExperimentConfig

OLD = ("confirm.window_s=2.5", "confirm.budget_s=45")
"""The default space's confirmation as it was when one turn an arm was measured."""


def config(*overrides: str, device: str = "cpu") -> ExperimentConfig:
    return load_config(DEFAULT_SPACE, list(overrides), device)


def measured(start: float = 3.7, warm: float = 1.3, load: float = 14.5, first: float = 5.0) -> list[EvaluationRecord]:
    """Evaluations as two idle cores have them: three windows of 2.5 s and a ramp."""
    latency = {"stt_latency_ms": {"p95": 1400.0}, "llm_latency_ms": {"p95": 200.0}}

    def times(seconds: float) -> dict[str, Any]:
        return {"start": seconds, "start_by_part": {"vllm": 2.0}, "warm": warm, "load": load, "stop": 0.2}

    made = [line("g0-c0", SLOW, 0.4, duration_s=times(first)), *(line(f"g1-c{i}", FAST, 0.6, duration_s=times(start)) for i in range(3))]
    return [EvaluationRecord.parse(each.dump() | {"n_windows": 3, "metrics": each.metrics | latency}, "a line") for each in made]


def times(lines: list[EvaluationRecord], space: ExperimentConfig) -> DeploymentTimes:
    found = times_of(lines, space)
    assert found is not None
    return found


def test_the_default_space_confirms_on_two_cores_idle_or_busy() -> None:
    space = config()
    idle, busy, busier = measured(), measured(start=4.0, warm=1.9, load=16.0, first=25.0), measured(start=12.0, warm=4.0, load=30.0, first=40.0)
    for lines in (idle, busy, busier):
        planned = forecast(space, times(lines, space), 1)
        assert planned.fits
        assert planned.n_rounds >= space.confirm.min_rounds
        assert not planned.changes


def test_a_budget_of_two_rounds_is_no_confirmation() -> None:
    """The recorded runs held two rounds on a quiet machine and one on a busy one."""
    space = config(*OLD)
    quiet = forecast(space, times(measured(), space), 1)
    assert (quiet.fits, quiet.n_rounds) == (False, 2)
    assert "confirm.budget_s=45 is too short for the 3 rounds that a verdict needs" in quiet.too_short
    assert quiet.budget_s >= quiet.needed_s > 45
    busy = forecast(space, times(measured(start=4.0, warm=1.9, load=16.0, first=25.0), space), 1)
    assert (busy.fits, busy.n_rounds) == (False, 1)


def test_a_run_says_before_its_confirmation_that_there_is_none(tmp_path: Any) -> None:
    """It measured one turn an arm, and then said that no difference is shown."""
    space, printed = config(*OLD), list[str]()
    found = confirm_run(space, "cpu", RunFolder(tmp_path, "an-experiment", "r1"), FAST, measured(), {}, printed.append)
    assert not found.confirmed
    assert found.record is None
    assert "too short for the 3 rounds" in found.why
    assert len(printed) == 1
    assert "tune-gpu compare r1 run.artifacts_dir=" in printed[0]
    assert "--budget-s 120" in printed[0]


def test_the_ramp_goes_first_then_the_rivals_then_windows() -> None:
    space = config("confirm.windows=null", "confirm.window_s=2.5", "confirm.capacity=true", "confirm.candidates=3")
    lines = measured(load=30.0)
    whole = forecast(space, times(lines, space), 3)
    assert whole.changes == ("no search for the capacity", "no rivals")
    assert whole.config.confirm.capacity is False
    assert whole.n_arms == 2
    ample = config("confirm.windows=null", "confirm.capacity=true", "confirm.candidates=3", "confirm.budget_s=3600")
    assert forecast(ample, times(lines, ample), 3).changes == ()
    tight = config("confirm.windows=null", "confirm.budget_s=100")
    assert forecast(tight, times(measured(), tight), 1).config.confirm.windows == 1


def test_a_verdict_on_the_fitness_keeps_the_ramp_that_it_weighs() -> None:
    space = config("confirm.metric=fitness", "confirm.capacity=true", "confirm.budget_s=60")
    planned = forecast(space, times(measured(load=30.0), space), 1)
    assert planned.config.confirm.capacity
    assert not planned.fits
    weightless = config("confirm.metric=fitness", "confirm.capacity=true", "confirm.budget_s=90", "objective.weights.capacity=0")
    assert not forecast(weightless, times(measured(load=30.0), weightless), 1).config.confirm.capacity


SPACE = config("confirm.windows=null", "confirm.capacity=true")


@settings(max_examples=25, deadline=None)
@given(start=st.floats(0.1, 300.0), tail=st.floats(0.0, 60.0), ramp=st.floats(0.0, 120.0), budget=st.floats(1.0, 5000.0), arms=st.integers(1, 4))
def test_what_fits_holds_the_rounds_and_less_is_never_dearer(start: float, tail: float, ramp: float, budget: float, arms: int) -> None:
    space = replace(SPACE, confirm=replace(SPACE.confirm, budget_s=budget))
    planned = forecast(space, DeploymentTimes(start, tail, ramp, first_s=start / 2), arms)
    assert not planned.fits or planned.n_rounds >= space.confirm.min_rounds
    assert planned.fits or planned.budget_s >= planned.needed_s > budget
    assert 2 <= planned.n_arms <= arms + 1
    enough = replace(SPACE, confirm=replace(SPACE.confirm, budget_s=max(planned.needed_s, 1.0)))
    assert forecast(enough, DeploymentTimes(start, tail, ramp, first_s=start / 2), arms).fits


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_says_beforehand_whether_the_winner_is_confirmed(device: str) -> None:
    space = config(device=device)
    assert forecast(space, typical_times(space, device), space.confirm.candidates).fits
    assert "a verdict needs 3" in predicted_confirmation(space, device)
    short = config("confirm.budget_s=45", device=device)
    assert predicted_confirmation(short, device).startswith("confirmation: none; confirm.budget_s=45 is too short for the 3 rounds")
    assert "tune-gpu compare RUN_ID --budget-s" in predicted_confirmation(short, device)
    assert "confirm.enabled=false" in predicted_confirmation(config("confirm.enabled=false", device=device), device)


def test_the_command_plan_tells_of_the_confirmation() -> None:
    done = CliRunner().invoke(plan, ["device=cpu", "confirm.budget_s=45"])
    assert "confirmation: none; confirm.budget_s=45 is too short" in done.output, done.output


def test_an_engine_that_stayed_running_says_nothing_of_a_start() -> None:
    space = config()
    kept = line("g2-c0", FAST, 0.6, n_windows=3, engine_reused=True, duration_s={"start": 0.1, "load": 14.5, "stop": 0.2})
    assert times([*measured(), kept, kept, kept, kept], space).start_s == times(measured(), space).start_s
    assert times_of([], space) is None
