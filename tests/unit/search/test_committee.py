"""The two models' common judgement."""

from __future__ import annotations

import numpy as np

from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.committee import Committee
from tune_gpu.search.encoding import Array, Encoding
from tune_gpu.search.space import SearchSpace

SPACE = SearchSpace.from_specs({name: ParameterSpec(target="", values=list(range(9))) for name in "abc"})


def scores(seed: int) -> Array:
    """Of the whole space, after the same twenty measurements whatever the seed."""
    encoding = Encoding(SPACE)
    table = encoding.table(1000)
    assert table is not None
    measured = table[np.random.default_rng(0).permutation(len(table))[:20]]
    committee = Committee(encoding, np.random.default_rng(seed))
    committee.learn(measured, -((measured - 4.0) ** 2).sum(axis=1), np.ones(20), np.empty((0, 3)), 20)
    return committee.score(table)


def test_a_searchs_forests_are_its_own_and_the_same_when_it_is_repeated() -> None:
    assert (scores(1) == scores(1)).all()
    assert (scores(1) != scores(2)).any()


def length_scales(space: SearchSpace, *, noise_free: bool) -> Array:
    """After thirty measurements of a slope in the first parameter, with a little noise."""
    encoding, rng = Encoding(space), np.random.default_rng(0)
    rows = np.array([encoding.encode(space.sample(rng)) for _ in range(30)])
    committee = Committee(encoding, rng)
    committee.learn(rows, rows[:, 0] + 0.05 * rng.standard_normal(30), np.ones(30), np.empty((0, encoding.n)), 30, noise_free=noise_free)
    return np.exp(np.array(committee.state()["theta"][: encoding.n]))


def test_under_noise_a_range_that_seems_indifferent_is_not_ruled_out() -> None:
    ranges = SearchSpace.from_specs({name: ParameterSpec(target="", low=0.0, high=1.0) for name in "abc"})
    assert (length_scales(ranges, noise_free=False)[1:] < 0.9 * length_scales(ranges, noise_free=True)[1:]).all()
    assert (length_scales(SPACE, noise_free=False) == length_scales(SPACE, noise_free=True)).all()


def test_what_is_near_the_best_is_promising() -> None:
    table = Encoding(SPACE).table(1000)
    assert table is not None
    assert np.abs(table[np.argsort(-scores(0))[:10]] - 4.0).max() <= 2.0
