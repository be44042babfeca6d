"""Ranges in steps that are not written down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.steps import SteppedRange

WHOLE = SteppedRange(3, 2, 5000)
FINE = SteppedRange(0.0, 1e-6, 1_000_001)
LOG = SteppedRange(1, 1, 100_000, log=True)


@pytest.mark.parametrize("steps", [WHOLE, FINE, LOG, SteppedRange(0, 1, 2**40), SteppedRange(0.5, 0.25, 2, log=True)])
@given(share=st.floats(0, 1, exclude_max=True), by=st.floats(-1, 1))
def test_each_value_has_its_place_its_position_and_another_beside_it(steps: SteppedRange, share: float, by: float) -> None:
    index = int(steps.drawn(np.array([share]))[0])
    assert 0 <= index < len(steps)
    value = steps[index]
    assert steps.index_of(value) == steps.index(value) == index
    assert value in steps
    assert value + steps.step / 3 not in steps
    at = np.array([float(index)])
    assert steps.nearest(steps.positions(at)) == at
    there = steps.moved(at, np.array([by]))
    assert there != at
    assert 0 <= there < len(steps)


def test_a_value_is_found_by_arithmetic_and_nothing_else_is_one() -> None:
    assert WHOLE[:3] == [3, 5, 7]
    assert (WHOLE[-1], str(WHOLE)) == (10_001, "3 to 10001 in steps of 2")
    assert [WHOLE.index_of(other) for other in (4, 3.5, True, "3", None, float("inf"), float("nan"), 1, 10_003)] == [None] * 9
    assert [WHOLE.index_of(other) for other in (5, 5.0, np.int64(5))] == [1, 1, 1]
    assert FINE.index_of_nearest(0.1 * 3) == 300_000
    assert FINE.index_of_nearest(0.3000004) is None
    with pytest.raises(ValueError, match="4 is not among 3 to 10001"):
        WHOLE.index(4)
    with pytest.raises(IndexError):
        WHOLE[5000]


def test_draws_are_even_in_the_range_or_in_its_logarithm() -> None:
    shares = (np.arange(10_000) + 0.5) / 10_000
    assert np.median(WHOLE.drawn(shares)) == pytest.approx(2500, abs=2)
    assert np.median(LOG.drawn(shares)) == pytest.approx(316, abs=3)
    few = SteppedRange(1, 1, 8, log=True)
    drawn = np.bincount(few.drawn(shares).astype(int), minlength=8) / 10_000
    assert drawn == pytest.approx(few.masses(), abs=1e-3)
    assert few.masses().sum() == pytest.approx(1.0)


def test_positions_of_one_value_are_equal_to_the_last_bit() -> None:
    """However many are computed at once."""
    together = LOG.positions(np.arange(1000, dtype=np.float64))
    assert [float(LOG.positions(np.array([float(i)]))[0]) for i in range(1000)] == together.tolist()
