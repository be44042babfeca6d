"""The statistics of a race."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from tune_gpu.search.racing import Estimate, RaceVerdict, compare, has_lost, tied_with, winner

means = st.floats(-1e3, 1e3)
estimates = st.builds(Estimate, means, st.floats(0, 1e3), st.integers(2, 50))


def of(windows: list[float]) -> Estimate:
    return Estimate(float(np.mean(windows)), float(np.std(windows, ddof=1) / math.sqrt(len(windows))), len(windows))


@given(estimates, estimates)
def test_a_comparison_seen_from_the_other_side_is_its_opposite(a: Estimate, b: Estimate) -> None:
    opposite = {RaceVerdict.BETTER: RaceVerdict.WORSE, RaceVerdict.WORSE: RaceVerdict.BETTER, RaceVerdict.TIE: RaceVerdict.TIE}
    assert compare(b, a) is opposite[compare(a, b)]
    assert compare(a, a) is RaceVerdict.TIE


@pytest.mark.parametrize("seed", range(20))
def test_it_is_welchs_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.0, 1.0, 6).tolist(), rng.normal(1.2, 0.3, 9).tolist()
    p = float(ttest_ind(a, b, equal_var=False, alternative="less").pvalue)
    assert (compare(of(a), of(b), 0.05) is RaceVerdict.WORSE) == (p <= 0.05)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1.0, 1e170, 1e300])
def test_the_scale_of_the_measurements_does_not_count(scale: float) -> None:
    far, near, level = Estimate(0.0, 0.1 * scale, 4), Estimate(0.95 * scale, 0.1 * scale, 4), Estimate(scale, 0.1 * scale, 4)
    assert compare(near, level) is RaceVerdict.TIE
    assert compare(far, level) is RaceVerdict.WORSE


def test_identical_candidates_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(compare(of(rng.normal(0, 1, 5).tolist()), of(rng.normal(0, 1, 5).tolist()), 0.05) is not RaceVerdict.TIE for _ in range(1000))
    assert wrong <= 120, "two sides at 5 % each: about 100 of 1000"


def test_nothing_is_decided_by_a_single_window() -> None:
    assert compare(Estimate(9.0, None), Estimate(0.0, 0.1, 5)) is RaceVerdict.TIE
    assert compare(Estimate(9.0, 0.0, 1), Estimate(0.0, 0.1, 5)) is RaceVerdict.TIE


def test_measurements_without_any_noise_are_told_apart_by_value() -> None:
    assert compare(Estimate(1.0, 0.0, 2), Estimate(1.1, 0.0, 2)) is RaceVerdict.WORSE


def test_a_candidate_has_lost_when_no_place_is_left() -> None:
    poor, good, better = Estimate(0.1, 0.01, 4), Estimate(0.9, 0.01, 4), Estimate(0.95, 0.01, 4)
    assert not has_lost(poor, [good], 2)
    assert has_lost(poor, [good, better], 2)
    assert not has_lost(good, [poor, better], 2)


@given(estimates, st.lists(estimates, min_size=1, max_size=6), st.integers(1, 3))
def test_the_best_mean_never_loses(candidate: Estimate, rivals: list[Estimate], places: int) -> None:
    top = Estimate(max([candidate.mean, *(r.mean for r in rivals)]), candidate.stderr, candidate.n_windows)
    assert not has_lost(top, rivals, places)


def test_the_winner_is_sure_rather_than_lucky() -> None:
    known: dict[Hashable, Estimate] = {"lucky": Estimate(1.2, 0.5, 3), "sure": Estimate(1.1, 0.01, 6), "once": Estimate(1.5, None)}
    assert winner(known) == "sure"
    assert set(tied_with("sure", known)) == {"lucky", "once"}
    assert winner({"a": Estimate(1.0, None), "b": Estimate(2.0, None)}) == "b"
    assert winner({}) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((math.nan, 0.1, 2), "mean=nan"), ((1.0, -0.1, 2), "stderr=-0.1"), ((1.0, math.inf, 2), "stderr=inf"), ((1.0, 0.1, 0), "n_windows=0")],
)
def test_what_is_no_estimate_is_refused(arguments: tuple[float, float, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Estimate(*arguments)
