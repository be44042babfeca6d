"""A queue that grows through the whole window is told from a slow system, a busy one and a lucky one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.servers import Behaviour, servers
from tests.unit.workload.test_traffic import INPUTS, workload
from tune_gpu.workload.arrivals import poisson_arrivals
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.saturation import saturation_of
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult, run_window


def window(turns: Sequence[tuple[float, float | None]], seconds: float) -> WindowResult:
    """A window of turns (due, latency), which ends with its arrivals; None is a turn that was shed."""

    def turn(due: float, latency: float | None) -> Turn:
        samples = {} if latency is None else {"stt": TranscriptionSample(due, due + latency, "yes", 0.1)}
        return Turn(due, "clip", "yes", {**samples}, shed=latency is None)

    made = [turn(100.0 + due, latency) for due, latency in turns]
    return WindowResult("stt", seconds, made, started=100.0, offered_s=seconds)


def queued(rng: np.random.Generator, rate: float, service_s: float, seconds: float, *, servers: int = 1) -> WindowResult:
    """Turns at a server of exponential service times."""
    free, turns = [0.0] * servers, []
    for due in poisson_arrivals(rate, seconds, rng):
        begins = max(due, min(free))
        ends = begins + float(rng.exponential(service_s))
        free[free.index(min(free))] = ends
        turns.append((due, ends - due))
    return window(turns, seconds)


def test_the_recorded_window_of_six_seconds_with_a_p95_of_22_is_saturated() -> None:
    turns: list[tuple[float, float | None]] = [(0.4, 4.5), (1.7, 8.0), (2.9, 12.1), (4.1, 16.8), (5.5, 22.0)]
    found = saturation_of([window(turns, 6.0)])
    assert found is not None
    assert (found.saturated, found.offered, found.answered_in_time) == (True, 5, 1)
    assert found.growth_ms_per_s == pytest.approx(3400, rel=0.1)


@pytest.mark.parametrize(("rate", "seconds", "share"), [(0.5, 20.0, 0.85), (2.0, 20.0, 0.95), (3.0, 10.0, 0.95), (2.0, 60.0, 0.95)])
def test_twice_as_many_arrivals_as_service_are_found(rate: float, seconds: float, share: float) -> None:
    rng = np.random.default_rng(3)
    found = [saturation_of([queued(rng, rate, 2.0 / rate, seconds) for _ in range(3)]) for _ in range(100)]
    assert np.mean([one is not None and one.saturated is True for one in found]) >= share


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 2.5), (0.5, 20.0), (2.0, 20.0), (4.0, 60.0)])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_system_that_keeps_up_is_seldom_called_saturated(rate: float, seconds: float, load: float) -> None:
    rng = np.random.default_rng(4)
    found = [saturation_of([queued(rng, rate, load / rate, seconds) for _ in range(3)]) for _ in range(100)]
    assert np.mean([one is not None and one.saturated is True for one in found]) <= 0.05


def test_a_slow_system_without_a_queue_is_not_saturated() -> None:
    """Each turn takes longer than the window, and none waits for another."""
    rng = np.random.default_rng(5)
    found = [saturation_of([window([(float(due), 8.0 * float(np.exp(0.1 * rng.normal()))) for due in np.arange(0.5, 6.0, 0.7)], 6.0)]) for _ in range(200)]
    assert not any(one.saturated for one in found if one)


def test_turns_that_are_shed_count_as_arrivals_that_were_not_served() -> None:
    turns: list[tuple[float, float | None]] = [(1.0, 1.0), (2.0, 3.0), (3.0, 5.0), (4.0, None), (5.0, None), (6.0, None)]
    found = saturation_of([window(turns, 7.0)])
    assert found is not None
    assert (found.saturated, found.offered, found.answered_in_time) == (True, 6, 2)


def test_one_or_two_turns_show_no_trend() -> None:
    for turns in ([], [(0.5, 30.0)], [(0.5, 10.0), (1.0, 20.0)]):
        found = saturation_of([window(list(turns), 2.0)])
        assert found is None or found.saturated is None, "they came too late, and one cannot tell why"
    in_time = saturation_of([window([(0.5, 0.2)], 2.0)])
    assert in_time is not None
    assert in_time.saturated is False
    assert saturation_of([WindowResult("stt", 2.0, window([(0.5, 1.0)], 2.0).turns)]) is None, "a window that does not know its arrivals' end"


def test_a_server_that_does_half_of_what_is_asked_is_found() -> None:
    one_at_a_time = workload(background_rate_per_s=0.0, turn_rate_per_s=40.0, window_s=1.0)
    with servers(Behaviour(stt_s=0.1, stt_one_at_a_time=True)) as traffic:
        slow = saturation_of([run_window(traffic, one_at_a_time, INPUTS, seed=0, window_index=0)])
    with servers(Behaviour(stt_s=0.1)) as traffic:
        well = saturation_of([run_window(traffic, one_at_a_time, INPUTS, seed=0, window_index=0)])
    assert slow is not None
    assert well is not None
    assert (slow.saturated, well.saturated) == (True, False)


def test_turns_that_the_end_of_a_window_cut_count_as_unanswered() -> None:
    """Without them the slowest turns of a queue that grows are missing, and it looks like one that keeps up."""
    turns = [(0.5 * at, 0.4 + 0.9 * at) for at in range(12)]
    cut = window(turns, 6.0)
    cut.censored, cut.turns = cut.turns[7:], cut.turns[:7]
    whole, found = saturation_of([window([*turns[:7], *((due, None) for due, _ in turns[7:])], 6.0)]), saturation_of([cut])
    assert found is not None
    assert found == whole
    assert (found.saturated, found.offered) == (True, 12)
