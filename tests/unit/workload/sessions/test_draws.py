"""Draws are functions of their keys; distributions have the mean, the median and the percentile that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tune_gpu.config.distributions import Distribution
from tune_gpu.workload.sessions.distributions import counts, mean, quantile
from tune_gpu.workload.sessions.draws import Purpose, uniform

KEYS = st.integers(-(2**40), 2**40)
MANY = np.arange(200_000)


@given(KEYS, KEYS, st.lists(KEYS, min_size=1, max_size=20), KEYS, st.sampled_from(list(Purpose)))
def test_a_draw_does_not_depend_on_its_neighbours(seed: int, window: int, sessions: list[int], turn: int, purpose: Purpose) -> None:
    together = uniform(seed, window, np.array(sessions), turn, purpose)
    alone = [float(uniform(seed, window, session, turn, purpose)[0]) for session in sessions]
    assert together.tolist() == alone
    assert all(0.0 < one < 1.0 for one in alone)


@pytest.mark.parametrize("place", range(5))
def test_each_key_decides_and_leaves_no_pattern(place: int) -> None:
    keys: list[int | np.ndarray] = [1, 2, 3, 4, 5]
    keys[place] = MANY
    drawn = uniform(*keys)
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert len(np.unique(drawn)) == len(MANY)


def test_the_numbers_of_plans_stay_as_they_are() -> None:
    """Two implementations of the chain agree, and so do all versions of this one."""

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    mixed = 0
    for key in (7, 0, -3, 2, int(Purpose.THINK)):
        mixed = mix(mixed ^ mix((key + 0x9E3779B97F4A7C15) % 2**64))
    assert float(uniform(7, 0, -3, 2, Purpose.THINK)[0]) == ((mixed >> 11) + 0.5) / 2**53
    assert [int(purpose) for purpose in Purpose] == list(range(1, len(Purpose) + 1))


@pytest.mark.parametrize(
    ("of", "median", "p95"),
    [
        (Distribution("constant", value=3.0), 3.0, 3.0),
        (Distribution("lognormal", median=2.0, p95=12.0), 2.0, 12.0),
        (Distribution("uniform", least=1.0, most=3.0), 2.0, 2.9),
        (Distribution("exponential", mean=2.0), 2.0 * np.log(2), 2.0 * np.log(20)),
        (Distribution("poisson", mean=4.0), stats.poisson.ppf(0.5, 4), stats.poisson.ppf(0.95, 4)),
        (Distribution("lognormal", median=2.0, p95=12.0, most=5.0), 2.0, 5.0),
    ],
)
def test_a_distribution_has_the_quantiles_that_it_names(of: Distribution, median: float, p95: float) -> None:
    assert quantile(of, np.array([0.5, 0.95])) == pytest.approx([median, p95])
    drawn = quantile(of, uniform(0, 0, MANY, 0, Purpose.THINK))
    assert drawn.mean() == pytest.approx(mean(of), rel=0.02)


def test_poisson_counts_are_those_of_scipy() -> None:
    u = uniform(0, 0, MANY[:5000], 0, Purpose.TURNS)
    assert quantile(Distribution("poisson", mean=3.7), u).tolist() == stats.poisson.ppf(u, 3.7).tolist()


def test_zipf_ranks_have_their_shares() -> None:
    drawn = counts(Distribution("zipf", alpha=1.0, most=4.0), uniform(0, 0, MANY, 0, Purpose.TURNS))
    assert np.bincount(drawn)[1:] / len(MANY) == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.005)
