"""Who has lost a race."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.evidence import Deployment, Evidence
from tune_gpu.search.racing import has_lost

runs = st.lists(st.builds(Deployment, st.integers(0, 6), st.floats(-1e3, 1e3), st.floats(0.01, 1e2), st.sampled_from([1.0, 4.0])), min_size=2, max_size=20)


def of(**values: float) -> Evidence:
    return Evidence(Deployment(name, value, 0.01, 3.0) for name, value in values.items())


def test_a_candidate_has_lost_when_no_place_is_left() -> None:
    evidence = of(poor=0.1, good=0.9, better=0.95)
    assert not has_lost(evidence, "poor", ["good"], 2)
    assert has_lost(evidence, "poor", ["good", "better"], 2)
    assert not has_lost(evidence, "good", ["poor", "better"], 2)


@given(runs, st.integers(1, 3))
def test_the_best_mean_never_loses(run: list[Deployment], places: int) -> None:
    evidence = Evidence(run)
    best = evidence.ranked()[0]
    assert not has_lost(evidence, best, [key for key in evidence.keys if key != best], places)


def test_equal_candidates_seldom_lose() -> None:
    rng, lost = np.random.default_rng(0), 0
    for _ in range(300):
        evidence = Evidence(Deployment(i, float(rng.normal(0.0, 2.0) + rng.normal(0.0, 1.0)), 1.0, 2.0) for i in range(5))
        lost += has_lost(evidence, 0, [1, 2, 3, 4], 1)
    assert lost <= 24, "one side at 5 %: about 15 of 300"


def test_without_noise_candidates_are_told_apart_by_value() -> None:
    evidence = Evidence([Deployment("a", 1.0, 0.0), Deployment("b", 1.1, 0.0)])
    assert has_lost(evidence, "a", ["b"], 1)
    assert not has_lost(evidence, "b", ["a"], 1)


def test_nobody_loses_where_nothing_is_known_of_the_noise() -> None:
    assert not has_lost(Evidence([Deployment("a", 0.0), Deployment("b", 9.0)]), "a", ["b"], 1)


def test_a_rival_that_was_not_measured_is_refused() -> None:
    with pytest.raises(KeyError):
        has_lost(of(a=0.1, b=0.9), "a", ["c"], 1)
