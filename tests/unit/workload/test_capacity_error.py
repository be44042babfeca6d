"""How sure a ramp is of its capacity."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest

from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.workload.capacity import Capacity, decide, ratios_of, with_error
from tune_gpu.workload.capacity_error import resampled, until_failed
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.turn import Turn

OBJECTIVE = ObjectiveSettings()


def turn(heard: TranscriptionSample, answer: GenerationSample) -> Turn:
    return Turn(0.0, "clip", "yes", {"stt": heard, "llm": answer})


def ramp(rng: np.random.Generator, turns_a_session: int, spread: float = 0.15) -> tuple[Capacity, list[np.ndarray]]:
    """A ramp to four sessions; each more raises the latencies by 30 % of their targets, around 1 at two and a half."""
    steps: list[np.ndarray] = []
    loads: list[float] = []
    for sessions in range(1, 5):
        steps.append((0.25 + 0.3 * sessions) * np.exp(spread * rng.normal(size=(turns_a_session * sessions, 3))))
        loads.append(float(np.percentile(steps[-1], OBJECTIVE.latency_percentile, axis=0).max()))
        if loads[-1] > 1.0:
            break
    return decide(loads, at_ceiling=loads[-1] <= 1.0), steps


@pytest.mark.parametrize("turns", [2, 6])
def test_the_error_is_about_as_large_as_ramps_made_again_differ(turns: int) -> None:
    rng = np.random.default_rng(3)
    ramps = [ramp(rng, turns) for _ in range(200)]
    spread = statistics.stdev(capacity.continuous for capacity, _ in ramps)
    found = [with_error(replace(capacity, steps=tuple(steps)), OBJECTIVE, seed=seed) for seed, (capacity, steps) in enumerate(ramps)]
    reported = statistics.fmean(one.stderr**2 for one in found if one.stderr is not None) ** 0.5
    assert 0.7 < reported / spread < 1.5
    truth = statistics.median(capacity.continuous for capacity, _ in ramps)
    assert np.mean([one.interval[0] <= truth <= one.interval[1] for one in found if one.interval]) > 0.85


def test_a_ramp_of_one_turn_a_step_does_not_know_its_error() -> None:
    found = with_error(replace(decide([0.5, 1.5], at_ceiling=False), steps=(np.full((1, 3), 0.5), np.full((1, 3), 1.5))), OBJECTIVE)
    assert found.stderr is None
    assert found.interval is None


def test_turns_of_windows_tell_the_spread_that_short_steps_do_not() -> None:
    def answered(ms: float) -> Turn:
        return turn(TranscriptionSample(0.0, ms / 1e3, "yes", 1.0), GenerationSample(ms / 1e3, [ms / 500, ms / 400], 2))

    ramp = replace(decide([0.5, 1.5], at_ceiling=False), steps=(np.full((1, 3), 0.5), np.full((1, 3), 1.5)))
    found = with_error(ramp, OBJECTIVE, [[answered(200.0)], [answered(300.0), answered(250.0)]])
    assert found.stderr is not None
    assert found.stderr > 0.0
    assert found.continuous == ramp.continuous


def test_turns_that_never_differ_leave_no_doubt() -> None:
    found = with_error(replace(decide([0.5, 1.5], at_ceiling=False), steps=(np.full((4, 3), 0.5), np.full((8, 3), 1.5))), OBJECTIVE)
    assert found.continuous == 1.5
    assert found.stderr == pytest.approx(0.0, abs=1e-9)


def test_a_step_without_an_answer_stays_failed() -> None:
    rng = np.random.default_rng(0)
    found = with_error(replace(decide([0.5, float("inf")], at_ceiling=False), steps=(0.5 * np.exp(0.1 * rng.normal(size=(5, 3))), np.empty((0, 3)))), OBJECTIVE)
    assert found.continuous == 1.0
    assert found.interval == (1.0, 1.0)


def test_a_ramp_ends_at_its_first_failed_step() -> None:
    assert until_failed([0.5, 1.2, 0.9]) == [0.5, 1.2]
    assert until_failed([0.5, 0.9]) == [0.5, 0.9]


def test_only_answered_turns_count() -> None:
    heard = TranscriptionSample(0.0, 0.2, "yes", 1.0)
    answered, failed = turn(heard, GenerationSample(0.2, [0.3, 0.7], 2)), turn(heard, GenerationSample(0.2, error="timeout"))
    rows = ratios_of([answered, failed], ObjectiveSettings(stt_latency_target_ms=200.0, llm_latency_target_ms=1000.0, ttft_target_ms=100.0))
    assert rows == pytest.approx(np.array([[1.0, 0.5, 1.0]]))
    assert ratios_of([failed], OBJECTIVE).shape == (0, 3)


def test_the_same_turns_give_the_same_interval() -> None:
    steps = [np.exp(np.random.default_rng(1).normal(size=(4, 3)) * 0.2)]
    made = [resampled(steps, [0.9], 95, lambda loads: decide(loads, at_ceiling=False).continuous, np.random.default_rng(5)) for _ in range(2)]
    assert made[0] is not None
    assert np.array_equal(made[0], made[1])  # type: ignore[arg-type]
