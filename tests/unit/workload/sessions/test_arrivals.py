"""When sessions begin: the rate, bursts, given times, and that a longer past or window shifts none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from tune_gpu.config.session_settings import ArrivalSettings
from tune_gpu.workload.sessions.arrivals import Times, arrivals_of


def within(settings: ArrivalSettings, seconds: float, index: int = 0, times: tuple[float, ...] = ()) -> np.ndarray:
    found = []
    for _, at_s in arrivals_of(settings, times, seed=1, index=index, seconds=seconds).after():
        found.append(at_s[at_s < seconds])
        if at_s[-1] >= seconds:
            return np.concatenate(found)
    raise AssertionError


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_the_rate_and_the_burstiness_are_those_asked_for(shape: float) -> None:
    settings = ArrivalSettings("gamma", 600.0, shape)
    gaps = np.diff(within(settings, 3000.0))
    assert 1.0 / gaps.mean() == pytest.approx(10.0, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.05)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(within(ArrivalSettings("poisson", 600.0), 1000.0))
    assert stats.kstest(gaps, "expon", (0, 0.1)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_a_window_begins_as_if_callers_had_always_come(shape: float) -> None:
    """Short windows have as many arrivals as long ones for their length: none begins with an arrival, or with a pause."""
    settings = ArrivalSettings("gamma", 60.0, shape)
    counted = [len(within(settings, 2.0, index)) for index in range(2000)]
    assert np.mean(counted) == pytest.approx(2.0, abs=4 * np.std(counted) / 2000**0.5)


def test_times_before_the_window_go_back_and_are_numbered_apart() -> None:
    arrivals = arrivals_of(ArrivalSettings("poisson", 60.0), (), seed=0, index=3, seconds=20.0)
    blocks = list(itertools.islice(arrivals.before(), 3))
    numbers, at_s = (np.concatenate(column) for column in zip(*blocks, strict=True))
    assert numbers.tolist() == list(range(-1, -1 - len(numbers), -1))
    assert at_s[0] < 0
    assert (np.diff(at_s) < 0).all()
    assert len(at_s) / -at_s[-1] == pytest.approx(1.0, rel=0.1)


def test_given_times_are_taken_in_stretches_and_repeated() -> None:
    times = (0.0, 1.0, 4.0, 5.0, 12.0)  # repeated after 15
    settings = ArrivalSettings("times", file="x")
    assert within(settings, 5.0, 0, times).tolist() == [0.0, 1.0, 4.0]
    assert within(settings, 5.0, 1, times).tolist() == [0.0]
    assert within(settings, 5.0, 2, times).tolist() == [2.0]
    assert within(settings, 5.0, 3, times).tolist() == [0.0, 1.0, 4.0]
    assert within(settings, 20.0, 0, times).tolist() == [0.0, 1.0, 4.0, 5.0, 12.0, 15.0, 16.0, 19.0]
    numbers, at_s = next(Times(times, 5.0).before())
    assert (numbers[:4].tolist(), at_s[:4].tolist()) == ([-1, -2, -3, -4], [-1.0, -4.0, -5.0, -8.0])
